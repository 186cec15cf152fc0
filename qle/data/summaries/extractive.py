"""Summaries without a model: the sentences of a video that say most of what the others say. numpy only, deterministic.

TextRank (Mihalcea and Tarau 2004): sentences are bags of stemmed words weighted by their rarity within the video, likeness is
the cosine, importance is where a random walk over likenesses (damping 0.85) comes to rest. `sentence` is the most important
one; `paragraph` takes three, each important and unlike those before it (maximal marginal relevance, 0.7 to 0.3), in order
of time; `title` lists the words that important sentences share, in the order in which they first come.

A deviation: stop words include who acts ("the person", "she"), because every sentence of such data begins with that.
Numbers of a video depend on no other video. Made for English.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qle.data.summaries.levels import Level, Summariser, Summary, evenly

VERSION = 1
"""Version of the rules below: texts of another version are made anew."""
DAMPING = 0.85
NEWNESS = 0.3
"""Against importance, when a further sentence is chosen."""
TITLE_WORDS = 5
MOST_SENTENCES = 2_000
"""Likenesses of all pairs are held in memory; of more sentences some are chosen evenly."""

_STOP_WORDS = frozenset(
    """
    a an the this that these those he she it they we you i his her its our their your my him them who which what and or but
    then than as at by for from in into of off on onto out over to up down with again while before after is are was were be
    been being has have had do does did not no so some all each other another both person man woman people someone somebody
    boy girl guy lady there here now next first finally also more one two very just video
    """.split()  # noqa: SIM905 - words, to be read and extended as words
)
_LIGHT_WORDS = frozenset("get take put go use begin start come make add remove".split())  # noqa: SIM905
"""Stems that say little about a video, though most of its sentences have them: not for titles."""
_WORD = re.compile(r"[a-z][a-z'-]*|[0-9]+")


class Extractive(Summariser):
    """Chooses; invents nothing."""

    def identity(self, level: Level) -> Mapping[str, Any]:
        return {"method": "extractive", "version": VERSION}

    def summarise(self, sentences: Sequence[str], level: Level) -> Summary:
        used = evenly([" ".join(sentence.split()) for sentence in sentences], MOST_SENTENCES)
        words = [_words(sentence) for sentence in used]
        likeness = _likeness([set(stems) for stems in words])
        importance = _importance(likeness)
        if level.num_sentences == 0:
            text = _title(words, importance) or used[0].rstrip(".")
        else:
            chosen = _choose(likeness, importance, level.num_sentences)
            text = " ".join(_ended(used[number]) for number in sorted(chosen))
        return Summary(text=text, num_used=len(used))


def _words(sentence: str) -> dict[str, str]:
    """Stem -> the word as it stands, without stop words. A set alone would do but for the title."""
    word_of_stem: dict[str, str] = {}
    for word in _WORD.findall(sentence.lower()):
        if word not in _STOP_WORDS:
            word_of_stem.setdefault(_stem(word), word)
    return word_of_stem


def _stem(word: str) -> str:
    """peels -> peel: enough to find the same thing again, and no more."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _likeness(sentences: Sequence[set[str]]) -> np.ndarray:
    """(sentences, sentences) float64, cosines, 0 on the diagonal."""
    vocabulary = {stem: column for column, stem in enumerate(sorted(set().union(*sentences)))}
    counts = np.zeros((len(sentences), max(len(vocabulary), 1)))
    for row, stems in enumerate(sentences):
        counts[row, [vocabulary[stem] for stem in sorted(stems)]] = 1.0
    rarity = np.log1p(len(sentences) / np.maximum(counts.sum(axis=0), 1.0))
    vectors = counts * rarity
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    likeness: np.ndarray = vectors @ vectors.T
    np.fill_diagonal(likeness, 0.0)
    return likeness


def _importance(likeness: np.ndarray) -> np.ndarray:
    """(sentences,) summing to 1. Rounded: sums in another order on another machine must not decide between equals."""
    count = len(likeness)
    total = likeness.sum(axis=1, keepdims=True)
    steps = np.where(total > 0, likeness / np.maximum(total, 1e-12), 1.0 / count)
    rank = np.full(count, 1.0 / count)
    for _ in range(100):
        following = (1 - DAMPING) / count + DAMPING * (rank @ steps)
        is_at_rest = np.abs(following - rank).sum() < 1e-10
        rank = following
        if is_at_rest:
            break
    return np.round(rank, 9)


def _choose(likeness: np.ndarray, importance: np.ndarray, count: int) -> list[int]:
    """Places of the chosen sentences, best first; of equals the earlier one."""
    worth = importance / importance.max()
    chosen: list[int] = []
    for _ in range(min(count, len(worth))):
        known = likeness[:, chosen].max(axis=1) if chosen else np.zeros(len(worth))
        score = np.round((1 - NEWNESS) * worth - NEWNESS * known, 9)
        score[chosen] = -np.inf
        chosen.append(int(np.argmax(score)))
    return chosen


def _title(sentences: Sequence[Mapping[str, str]], importance: np.ndarray) -> str:
    """The words with the most importance behind them, in the order in which they first come."""
    weights: dict[str, float] = {}
    shown: dict[str, str] = {}
    for stems, weight in zip(sentences, importance.tolist(), strict=True):
        for stem, word in ((stem, word) for stem, word in stems.items() if stem not in _LIGHT_WORDS):
            weights[stem] = weights.get(stem, 0.0) + weight
            shown.setdefault(stem, word)
    order = list(weights)
    best = sorted(order, key=lambda stem: (-round(weights[stem], 9), order.index(stem)))[:TITLE_WORDS]
    return " ".join(shown[stem] for stem in order if stem in best)


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."
