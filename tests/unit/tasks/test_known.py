"""A run knows how far its words reach: nonsense is outside, another thing of the same kind is not."""

import numpy as np
import pytest
import torch

from qle.data.annotations import Annotation
from qle.errors import MissingDependencyError
from qle.tasks.known import garble, learn_known
from qle.text import TextRequest, build_text_encoder
from qle.text.bank import QueryBank
from qle.text.known import KnownTexts

COLOURS, THINGS = ("green", "blue", "white"), ("polyp", "ring", "clip")


def annotations(words: list[str]) -> list[Annotation]:
    return [Annotation(qid=str(k), video="a.mp4", query=text, windows=((0.0, 1.0),)) for k, text in enumerate(words)]


@pytest.fixture(scope="module")
def bank() -> QueryBank:
    try:
        return QueryBank(build_text_encoder(TextRequest(name="minilm"), torch.device("cpu")))
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def known(bank: QueryBank) -> KnownTexts:
    found = learn_known(bank, annotations([f"a {colour} {thing}" for colour in COLOURS for thing in THINGS]))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("query", "is_outside"),
    [
        ("a green polyp", False), ("there is a green polyp", False), ("a purple ring", False), ("asdf qwer", True),
        ("the president gives a speech", True), ("qwertyuiop", True),
    ],
)  # fmt: skip
def test_nonsense_and_other_subjects_are_outside(
    bank: QueryBank, known: KnownTexts, query: str, is_outside: bool
) -> None:
    [near] = known.familiarity(bank.encode([query]).sentence)
    assert near.is_outside == is_outside
    assert near.is_outside == (near.distance > known.limit)
    if query == "a green polyp":
        assert near.distance == pytest.approx(0, abs=1e-5)
        assert near.probability > 0.99


def test_garbled_words_keep_their_letters_and_lengths() -> None:
    text = "a green polyp, then 2 clips"
    found = garble(text, np.random.default_rng(0))
    assert found != text
    assert sorted(found) == sorted(text)
    assert [len(word) for word in found.split()] == [len(word) for word in text.split()]


def test_an_encoder_that_puts_nonsense_anywhere_draws_no_limit() -> None:
    """Fresh weights of the trainable encoder know no words at all."""
    encoder = build_text_encoder(TextRequest(name="tiny", dim=8), torch.device("cpu"))
    found = learn_known(QueryBank(encoder), annotations(["a ring", "the blue clip", "smoke fills the view", "x"]))
    assert found is None or found.slope > 0


def test_an_encoder_that_refuses_nonsense_draws_no_limit() -> None:
    """One of stored queries reads nothing else; here a text is too long."""
    encoder = build_text_encoder(TextRequest(name="tiny", dim=8, max_words=3), torch.device("cpu"))
    assert learn_known(QueryBank(encoder), annotations(["one two three four five"])) is None
