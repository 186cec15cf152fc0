"""The bank: every distinct query once, kept where nothing can change, forgotten when something did."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from qle.errors import InputError
from qle.text import TextRequest, build_text_encoder
from qle.text.bank import QueryBank
from qle.text.base import TextEncoder, Words
from tests.small_models import bert_folder

pytestmark = pytest.mark.slow

QUERIES = ["polyp", "a green polyp", "polyp", "water jet, then the polyp", "a green polyp"]
DISTINCT = ["polyp", "a green polyp", "water jet, then the polyp"]


def counted(encoder: TextEncoder) -> tuple[TextEncoder, list[list[str]]]:
    """The encoder, and what it is asked from now on."""
    asked: list[list[str]] = []
    encoder.register_forward_pre_hook(lambda _, arguments: asked.append(list(arguments[0])))
    return encoder, asked


@pytest.fixture
def frozen(tmp_path: Path) -> tuple[TextEncoder, list[list[str]]]:
    return counted(build_text_encoder(TextRequest(name=str(bert_folder(tmp_path)))))


def same(found: Words, expected: Words) -> None:
    assert torch.equal(found.mask, expected.mask)
    torch.testing.assert_close(found.states, expected.states, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.sentence, expected.sentence, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.sentence_norm, expected.sentence_norm)
    assert found.ids is not None
    assert expected.ids is not None
    assert torch.equal(found.ids, expected.ids)


def test_a_frozen_encoder_sees_each_query_once(frozen) -> None:
    encoder, asked = frozen
    bank = QueryBank(encoder)
    first = bank.encode(QUERIES)
    assert asked == [DISTINCT]
    again = bank.encode([*QUERIES, "the jet"])
    assert asked == [DISTINCT, ["the jet"]]
    assert bank.num_kept == 4
    same(first, encoder(QUERIES))
    same(again, encoder([*QUERIES, "the jet"]))


def test_what_is_kept_does_not_depend_on_who_asked_first(frozen) -> None:
    """Kept while a bfloat16 training step ran, the words would not be those of localize."""
    encoder, _ = frozen
    exact = encoder(QUERIES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not torch.equal(encoder(QUERIES).states.float(), exact.states)
        words = QueryBank(encoder).encode(QUERIES)
    assert words.states.dtype == torch.float32
    same(words, exact)


def test_padding_goes_to_the_longest_of_the_call(frozen) -> None:
    bank = QueryBank(frozen[0])
    bank.encode(QUERIES)
    assert bank.encode(["polyp"]).mask.shape == frozen[0](["polyp"]).mask.shape


def test_a_trained_encoder_is_asked_every_time_and_gets_gradients() -> None:
    encoder, asked = counted(build_text_encoder(TextRequest(name="tiny")))
    bank = QueryBank(encoder)
    words = bank.encode(QUERIES)
    bank.encode(QUERIES)
    assert asked == [DISTINCT, DISTINCT]
    assert bank.num_kept == 0
    words.states.square().sum().backward()
    assert encoder.pieces.weight.grad is not None
    same(words, encoder(QUERIES))


def test_frozen_after_training_it_keeps_and_changed_weights_are_noticed() -> None:
    encoder, asked = counted(build_text_encoder(TextRequest(name="tiny")))
    bank = QueryBank(encoder)
    encoder.requires_grad_(requires_grad=False)
    before = bank.encode(QUERIES)
    bank.encode(QUERIES)
    assert len(asked) == 1
    with torch.no_grad():
        encoder.pieces.weight.mul_(-1)
    after = bank.encode(QUERIES)
    assert len(asked) == 2
    same(after, encoder(QUERIES))
    assert (after.sentence - before.sentence).abs().max() > 0.1


def test_memory_is_bounded_and_the_least_used_go_first(frozen) -> None:
    encoder, asked = frozen
    one = encoder(["polyp"])
    size = sum(tensor.nbytes for tensor in (one.states, one.sentence, one.sentence_norm, one.ids))
    del asked[:]
    bank = QueryBank(encoder, keep_bytes=2 * size)
    words = ["polyp", "jet", "grasper"]  # equally long
    bank.encode(words[:2])
    bank.encode(["polyp"])
    bank.encode(["grasper"])  # "jet" was used longest ago
    assert bank.num_kept == 2
    bank.encode(["polyp", "grasper"])
    assert asked == [["polyp", "jet"], ["grasper"]]
    same(bank.encode(words), encoder(words))  # more than it can keep is still all there
    assert bank.num_kept == 2
    bank.forget()
    assert bank.num_kept == 0


def test_many_queries_are_encoded_in_parts(frozen) -> None:
    encoder, asked = frozen
    queries = [f"polyp {number}" for number in range(300)]
    words = QueryBank(encoder).encode(queries)
    assert [len(part) for part in asked] == [128, 128, 44]
    same(words.select(torch.tensor([299])), encoder([queries[299]]))


def test_bad_queries_are_errors_before_anything_is_kept(frozen) -> None:
    bank = QueryBank(frozen[0])
    bad: list[tuple[Sequence[str], str]] = [([], "no query"), (["polyp", " "], "empty"), (["x " * 1000], "too long")]
    for queries, message in bad:
        with pytest.raises(InputError, match=message):
            bank.encode(queries)
    assert bank.num_kept == 0
