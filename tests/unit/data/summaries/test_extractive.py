"""Choosing among sentences."""

from pathlib import Path

import pytest

from qle.data.readers import tacos
from qle.data.readlog import ReadLog
from qle.data.summaries import extractive
from qle.data.summaries.extractive import Extractive
from qle.data.summaries.levels import LEVELS

EGG = (
    "The person takes out a pan",
    "He puts the pan on the stove.",
    "He breaks an egg into the pan.",
    "The phone rings.",
    "He fries the egg in the pan.",
    "He puts the egg on a plate.",
)


def summary(sentences: tuple[str, ...], level: str) -> str:
    return Extractive().summarise(sentences, LEVELS[level]).text


def test_what_most_sentences_speak_of_is_chosen() -> None:
    assert summary(EGG, "sentence") in ("He breaks an egg into the pan.", "He fries the egg in the pan.")
    title = summary(EGG, "title").split()
    assert {"pan", "egg"} <= set(title)
    assert title.index("pan") < title.index("egg"), "in the order in which things come"
    assert "rings" not in title


def test_a_paragraph_is_three_different_sentences_in_order() -> None:
    text = summary((*EGG, EGG[2].replace("He", "She")), "paragraph")
    places = [text.find(sentence.rstrip(".")) for sentence in EGG]
    found = [place for place in places if place >= 0]
    assert found == sorted(found)
    assert text.count(".") == 3
    assert not {"He breaks an egg into the pan.", "She breaks an egg into the pan."} <= {
        f"{part}." for part in text.split(". ")
    }


@pytest.mark.parametrize("sentences", [("It.",), ("Yes", "no!"), ("\u732b",), ("the man",)])
def test_little_is_said_of_little(sentences: tuple[str, ...]) -> None:
    for level in LEVELS:
        assert summary(sentences, level)


def test_one_sentence_is_its_own_summary_at_every_level() -> None:
    assert (
        summary(("He washes a plum",), "sentence") == summary(("He washes a plum",), "paragraph") == "He washes a plum."
    )
    assert summary(("He washes a plum",), "title") == "washes plum"


def test_too_many_sentences_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractive, "MOST_SENTENCES", 40)
    made = Extractive().summarise([f"he cuts apple {number}" for number in range(100)], LEVELS["title"])
    assert made.num_used == 40
    assert made.text.startswith("cuts apple")


def test_published_video(shared_annotations: Path) -> None:
    told = tacos.read(shared_annotations / "tacos_val.json", ReadLog())
    sentences = tuple(one.query for one in told if one.video == "s34-d28")
    assert "orange" in summary(sentences, "title")
    assert "orange" in summary(sentences, "sentence")
    assert summary(sentences, "sentence") in {" ".join(sentence.split()) for sentence in sentences}
    assert summary(sentences, "paragraph") == summary(sentences, "paragraph")
