"""Answers of models become queries."""

import pytest

from qle.data.summaries.levels import LEVELS, evenly, levels_of, tidy
from qle.errors import ConfigError


def test_levels_by_name() -> None:
    assert [level.name for level in levels_of("paragraph, title")] == ["title", "paragraph"]
    with pytest.raises(ConfigError, match="--levels short: 'short' is none of title, sentence, paragraph"):
        levels_of("short")
    with pytest.raises(ConfigError, match="name at least one of"):
        levels_of(" ,")


def test_evenly_takes_first_and_last() -> None:
    assert evenly("abcdefg", 3) == ["a", "d", "g"]
    assert evenly("abc", 1) == ["b"]
    assert evenly("abc", 9) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("answer", "level", "text"),
    [
        ('"Cooking an Egg."', "title", "Cooking an Egg"),
        ("**Title: Cooking an Egg**\nIt shows ...", "title", "Cooking an Egg"),
        ("<think>\nan egg. Hm.\n</think>\n\nA man cooks an egg. He eats it.", "sentence", "A man cooks an egg."),
        ("<think>and on and", "sentence", ""),
        ("Summary:  A man\ncooks.", "paragraph", "A man cooks."),
        ("One. Two! Three? Four.", "paragraph", "One. Two! Three?"),
        ("It costs 2.5 dollars. So what.", "sentence", "It costs 2.5 dollars."),
        (" ... ", "sentence", ""),
        ("", "title", ""),
    ],
)
def test_answers_are_tidied(answer: str, level: str, text: str) -> None:
    assert tidy(answer, LEVELS[level]) == text
