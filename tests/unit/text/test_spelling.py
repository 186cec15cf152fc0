"""Whole words among the pieces of the tokenizers that there are, and words that say little."""

import pytest

from qle.text.spelling import is_function_word, whole_words


@pytest.mark.parametrize(
    "pieces",
    [
        ["", "the</w>", "pol", "yp</w>", "jet</w>", ""],
        ["", "the", "pol", "##yp", "jet", ""],
        ["", "\u2581the", "\u2581pol", "yp", "\u2581jet", ""],
        ["", "\u0120the", "\u0120pol", "yp", "\u0120jet", ""],
    ],
)
def test_whole_words(pieces: list[str]) -> None:
    assert whole_words(pieces) == ("", "the", None, None, "jet", "")


def test_function_words() -> None:
    assert all(map(is_function_word, ("the", "With", "they", "could", "'s", ",", "12", "")))
    assert not any(map(is_function_word, ("polyp", "opens", "not", "left", "un", "polype", None)))
