"""How coarse a summary is, and the interface of what makes one. No torch."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qle.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """From the whole video as a name to the whole video as a short story."""

    name: str
    num_sentences: int
    """At most; 0: no sentence, a title."""
    task: str
    """What a language model is asked for."""
    max_tokens: int
    """That it may answer with."""


LEVELS: dict[str, Level] = {
    level.name: level
    for level in (
        Level(name="title", num_sentences=0, max_tokens=32, task="Give the video a title of at most eight words."),
        Level(name="sentence", num_sentences=1, max_tokens=64, task="Say in one short sentence what happens in the video."),
        Level(
            name="paragraph", num_sentences=3, max_tokens=160,
            task="Say in three sentences what happens in the video, from its beginning to its end.",
        ),
    )
}  # fmt: skip
"""Coarsest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What was made of the sentences of one video."""

    text: str
    """"" where nothing could be made of them."""
    num_used: int
    """Sentences that were looked at; a model with a short memory gets evenly chosen ones."""


class Summariser(ABC):
    """The same sentences give the same summary, whatever else is summarised before or after."""

    @abstractmethod
    def identity(self, level: Level) -> Mapping[str, Any]:
        """JSON on which every text of that level depends: method, model and its weights, prompt, decoding."""

    @abstractmethod
    def summarise(self, sentences: Sequence[str], level: Level) -> Summary:
        """`sentences`: of one video in order of time, none twice, at least one."""


def levels_of(names: str) -> tuple[Level, ...]:
    """ "title,sentence" -> those levels, in the order of LEVELS."""
    asked = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in asked if name not in LEVELS]:
        raise ConfigError(f"--levels {names}: {unknown[0]!r} is none of {', '.join(LEVELS)}")
    if not asked:
        raise ConfigError(f"--levels: name at least one of {', '.join(LEVELS)}")
    return tuple(level for level in LEVELS.values() if level.name in asked)


def evenly(sentences: Sequence[str], count: int) -> list[str]:
    """`count` of them, first and last included, spread over all."""
    if count >= len(sentences):
        return list(sentences)
    if count == 1:
        return [sentences[len(sentences) // 2]]
    return [sentences[round(number * (len(sentences) - 1) / (count - 1))] for number in range(count)]


_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_LABEL = re.compile(r"^(?:title|summary|answer|sentence|video title|video summary)\s*:\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def tidy(text: str, level: Level) -> str:
    """An answer as a query: in one line, without thoughts, marks, labels and quotes, and not longer than the level."""
    text = _THOUGHT.sub(" ", text).strip()
    if level.num_sentences == 0:
        text = text.split("\n", 1)[0]
    text = " ".join(re.sub(r"[*#`_]{1,3}", " ", text).split())
    text = _LABEL.sub("", text).strip(" \"'")
    if level.num_sentences == 0:
        return text.rstrip(".").strip()
    sentences = _SENTENCE_END.split(text)
    text = " ".join(sentences[: level.num_sentences]).strip()
    return text if any(sign.isalnum() for sign in text) else ""
