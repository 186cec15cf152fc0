"""The encoder without a vocabulary: stable pieces, unseen words, and that it can be trained."""

import pytest
import torch

from qle.errors import ConfigError
from qle.text import LoraSettings, TextRequest, build_text_encoder
from qle.text.tiny import bucket_of, letter_pieces, split_words


def build(**options):
    return build_text_encoder(TextRequest(name="tiny", **options))


def test_pieces_are_the_same_in_every_process() -> None:
    """hash() of a text differs between processes; these numbers were written down in another one."""
    assert [bucket_of(piece) for piece in ("polyp", "<po", "\u00e9")] == [3344, 2225, 3251]
    assert letter_pieces("cut") == ["<cu", "cut", "ut>", "<cut", "cut>", "<cut>"]
    assert letter_pieces("a") == ["<a>"]


def test_words() -> None:
    assert split_words("Water-jet, then the POLYP.") == ["water", "jet", "then", "the", "polyp"]
    assert split_words("clip_applier 2") == ["clip", "applier", "2"]
    assert split_words("Gr\u00fcner \ufb01lter") == ["gr\u00fcner", "filter"]  # the ligature is two letters
    assert split_words(" ... !") == []


def test_the_seed_decides_and_the_global_generator_does_not() -> None:
    torch.manual_seed(1)
    first = build(seed=5)
    state = torch.get_rng_state()
    again, other = build(seed=5), build(seed=6)
    assert torch.equal(state, torch.get_rng_state())
    for name, tensor in first.train_state().items():
        assert torch.equal(tensor, again.train_state()[name])
    assert not torch.equal(first.pieces.weight, other.pieces.weight)


def test_width() -> None:
    encoder = build(dim=32, max_words=7)
    assert encoder(["a polyp"]).states.shape == (1, 2, 32)
    assert (encoder.dim, encoder.sentence_dim, encoder.max_words) == (32, 32, 7)


def test_an_unseen_form_of_a_word_is_nearer_than_another_word() -> None:
    encoder = build()
    polyp, polyps, grasper = encoder(["polyp", "polyps", "grasper"]).sentence
    assert polyp @ polyps > polyp @ grasper + 0.1


def test_it_learns_which_thing_has_which_colour() -> None:
    """The same words in another order are another query: a bag of words would stay at chance."""
    queries = ["red polyp near green forceps", "green polyp near red forceps", "red polyp", "green polyp"]
    target = torch.tensor([1.0, -1.0, 1.0, -1.0])
    encoder = build().train()
    torch.manual_seed(0)
    reader = torch.nn.Linear(encoder.dim, 1, bias=False)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *reader.parameters()], lr=1e-2)
    for _ in range(12):
        optimiser.zero_grad()
        loss = torch.nn.functional.soft_margin_loss(reader(encoder(queries).sentence)[:, 0] * 10, target)
        loss.backward()
        optimiser.step()
    encoder.eval()
    assert (reader(encoder(queries).sentence)[:, 0] * target > 0).all()


def test_what_cannot_be_asked_of_it() -> None:
    with pytest.raises(ConfigError, match="trained as a whole"):
        build(lora=LoraSettings())
    for wrong in ({"dim": 10}, {"dim": 4}, {"max_words": 0}):
        with pytest.raises(ConfigError, match="expected"):
            build(**wrong)
