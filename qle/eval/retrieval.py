"""Retrieval: where in its list does each text find its video, and each video its text? No torch.

    similarity (texts, videos) + PairTable -> Ranks both ways -> R@K, MedR, MeanR, MRR -> Report

Equal scores are ties: whoever stands in one is counted with the chance that he would have in a random order of it, and the best
and worst orders are reported beside. Another video that the text is known to be true of as well is neither right nor wrong: it
is left out of that list. A video is held against the texts of the others by the best text of each (as all published code does),
so several captions of a video are one answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qle.data.pairs import PairTable
from qle.eval.bootstrap import LEVEL, interval, mean_draws, video_draws
from qle.eval.report import Metric, Report

CUTS = (1, 5, 10, 50, 100)
DSL_SCALE = 100.0
"""Factor on the scores inside the dual softmax, as published."""
DIRECTIONS = ("text_to_video", "video_to_text")
CHUNK = 1 << 22
"""Pairs that are compared at a time."""

PROTOCOL = {
    "text_to_video": "Every text ranks all videos; r@K: part of the texts whose video is among the first k; medr, meanr: "
    "median and mean rank, counted from 1; mrr: mean of 1 / rank. Ties count by chance. Other videos that the text is known to "
    "be true of are left out of its list.",
    "video_to_text": "Every video with a text ranks the videos that have one by the best of their texts.",
    "ties": "The same with every tie broken for (highest) and against (lowest) the right one; only where there are any.",
    "dsl": "Scores times their softmax (times 100) over all texts: every text knows what the others ask. Compare only with "
    "numbers that were made so.",
    "published_leak": "parity: T-MASS as published pools each candidate with its own caption, and so tells who is right. "
    "No measure of retrieval.",
    "floors": "chance: a random order.",
    "interval": f"{LEVEL:.0%} percentile interval, resampling videos.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """One list for each item: a text that ranks videos, or a video that ranks texts."""

    better: np.ndarray
    """(items,) int64: candidates with a higher score than the right one ..."""
    level: np.ndarray
    """... and others with the same."""
    candidates: np.ndarray
    """(items,) int64: length of the list."""
    video: np.ndarray
    """(items,) int64: number of the video of each item."""

    def expected(self) -> np.ndarray:
        """(items,) float64: mean place, counted from 0, over all orders of the tie."""
        return np.asarray(self.better + self.level / 2)

    def hit(self, cut: int) -> np.ndarray:
        """(items,) float64: the chance to be among the first `cut`."""
        return np.asarray(np.clip((cut - self.better) / (self.level + 1), 0.0, 1.0))

    def reciprocal(self) -> np.ndarray:
        """(items,) float64: mean of 1 / place, counted from 1."""
        harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, self.candidates.max(initial=0) + 1))])
        return np.asarray((harmonic[self.better + self.level + 1] - harmonic[self.better]) / (self.level + 1))

    def broken(self, *, is_lucky: bool) -> "Ranks":
        """Every tie decided."""
        better = self.better if is_lucky else self.better + self.level
        return replace(self, better=better, level=np.zeros_like(self.level))

    def by_chance(self) -> "Ranks":
        """The same lists in a random order: one great tie."""
        return replace(self, better=np.zeros_like(self.better), level=self.candidates - 1)


def text_to_video(similarity: np.ndarray, video_of_text: np.ndarray, also_true: np.ndarray | None = None) -> Ranks:
    """Every text ranks all videos. also_true: (texts, videos) bool, what is left out besides the text's own video."""
    num_texts, num_videos = similarity.shape
    own = similarity[np.arange(num_texts), video_of_text]
    counts = np.empty((3, num_texts), np.int64)
    step = max(1, CHUNK // num_videos)
    for first in range(0, num_texts, step):
        part = slice(first, first + step)
        is_rival = np.arange(num_videos) != video_of_text[part, None]
        if also_true is not None:
            is_rival &= ~also_true[part]
        counts[:, part] = _counted(similarity[part], own[part, None], is_rival, axis=1)
    return Ranks(better=counts[0], level=counts[1], candidates=counts[2] + 1, video=video_of_text)


def video_to_text(similarity: np.ndarray, video_of_text: np.ndarray, also_true: np.ndarray | None = None) -> Ranks:
    """Every video that has a text ranks the groups of texts of these videos, each by its best text."""
    order = np.argsort(video_of_text, kind="stable")
    described, first = np.unique(video_of_text[order], return_index=True)
    scores = similarity[np.ix_(order, described)]
    is_own = video_of_text[order, None] == described
    if also_true is not None:
        scores = np.where(also_true[np.ix_(order, described)] & ~is_own, -np.inf, scores)
    groups = np.maximum.reduceat(scores, first, axis=0)
    # A group of which every text is true of the video is no rival. (A score may itself be -inf: the mask decides.)
    is_rival = ~np.eye(len(described), dtype=bool)
    if also_true is not None:
        is_rival &= ~np.logical_and.reduceat(also_true[np.ix_(order, described)], first, axis=0)
    better, level, rivals = _counted(groups, groups.diagonal()[None], is_rival, axis=0)
    return Ranks(better=better, level=level, candidates=rivals + 1, video=described)


def retrieval_metrics(
    similarity: np.ndarray, video_of_text: np.ndarray, also_true: np.ndarray | None = None
) -> dict[str, dict[str, float]]:
    """Plain numbers both ways, recall as a part of 1: {"text_to_video": {"r@1": ...}, "video_to_text": ...}."""
    return {name: metrics_of(ranks) for name, ranks in both_ways(similarity, video_of_text, also_true).items()}


def metrics_of(ranks: Ranks) -> dict[str, float]:
    """r@K (parts of 1), meanr, mrr, medr."""
    return {metric: value for metric, (value, _) in _values(ranks).items()}


def both_ways(
    similarity: np.ndarray, video_of_text: np.ndarray, also_true: np.ndarray | None = None
) -> dict[str, Ranks]:
    """By DIRECTIONS. ValueError where a score is NaN: nobody knows where that stands."""
    if np.isnan(similarity).any():
        raise ValueError(f"{int(np.isnan(similarity).sum())} of {similarity.size} similarities are NaN")
    rank = (text_to_video, video_to_text)
    return {
        name: way(similarity, video_of_text, also_true) for name, way in zip(DIRECTIONS, rank, strict=True)
    }  # fmt: skip


def dual_softmax(similarity: np.ndarray) -> np.ndarray:
    """Scores times the softmax over all texts of 100 * score: a text that fits every video gives way."""
    wide = DSL_SCALE * similarity.astype(np.float64)
    share = np.exp(wide - wide.max(axis=0, keepdims=True))
    return np.asarray(similarity * (share / share.sum(axis=0, keepdims=True)))


def retrieval_report(
    similarity: np.ndarray,
    pairs: PairTable,
    *,
    with_dsl: bool = False,
    leaking: np.ndarray | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
) -> Report:
    """similarity: (pairs, videos), a row for each pair of the table. leaking: the same as the published evaluation makes it, with
    NaN where it has no score."""
    also_true = pairs.is_true(np.arange(len(pairs)), np.arange(len(pairs.videos)))
    ranks = both_ways(similarity, pairs.video, also_true)
    num_videos = len(pairs.videos)
    draws = video_draws(num_videos, num_bootstrap, seed) if num_bootstrap and num_videos > 1 else None
    groups = {name: _metrics(direction_ranks, draws) for name, direction_ranks in ranks.items()}
    if any(direction_ranks.level.any() for direction_ranks in ranks.values()):
        groups["ties"] = _tied(ranks)
    if with_dsl:
        dual = both_ways(dual_softmax(similarity), pairs.video, also_true)
        groups |= {f"{name}_dsl": _metrics(direction_ranks, draws) for name, direction_ranks in dual.items()}
    if leaking is not None:
        leaked = published_leak_ranks(leaking, pairs.video)
        groups |= {
            f"{name}_published_leak": _metrics(direction_ranks, None) for name, direction_ranks in leaked.items()
        }
    return Report(
        metrics=groups,
        per_query=(),
        counts={
            "videos": num_videos,
            "pairs": len(pairs),
            "queries": len(pairs.queries),
            "described_videos": len(pairs.described),
            "left_out_also_true": int(also_true.sum()) - len(pairs),
            "tied_texts": int((ranks[DIRECTIONS[0]].level > 0).sum()),
        },
        protocol={name: text for name, text in PROTOCOL.items() if name in _told(groups)},
        settings={"num_bootstrap": num_bootstrap if draws is not None else 0, "seed": seed, **(provenance or {})},
    )


def published_leak_ranks(leaking: np.ndarray, video_of_text: np.ndarray) -> dict[str, Ranks]:
    """parity: candidates without a score come first for a text (a descending sort puts NaN there), last for a video."""
    first, last = np.nan_to_num(leaking, nan=np.inf), np.nan_to_num(leaking, nan=-np.inf)
    ranks = text_to_video(first, video_of_text), video_to_text(last, video_of_text)
    return dict(zip(DIRECTIONS, ranks, strict=True))


def _told(groups: Mapping[str, Any]) -> set[str]:
    """Entries of PROTOCOL that speak of these groups."""
    parts = {part for part in ("dsl", "published_leak") for name in groups if name.endswith(part)}
    return {*groups, *parts, "floors", "interval"}


def _counted(scores: np.ndarray, own: np.ndarray, is_rival: np.ndarray, axis: int) -> tuple[np.ndarray, ...]:
    better, level = (scores > own) & is_rival, (scores == own) & is_rival
    return better.sum(axis), level.sum(axis), is_rival.sum(axis)


def _values(ranks: Ranks) -> dict[str, tuple[float, np.ndarray | None]]:
    """Each number, and of those that are means what they are means of."""
    expected, reciprocal = ranks.expected() + 1, ranks.reciprocal()
    hits = {f"r@{cut}": ranks.hit(cut) for cut in CUTS}
    means = {**hits, "meanr": expected, "mrr": reciprocal}
    numbers: dict[str, tuple[float, np.ndarray | None]] = {
        name: (float(values.mean()), values) for name, values in means.items()
    }
    return numbers | {"medr": (float(np.median(expected)), None)}


def _metrics(ranks: Ranks, draws: np.ndarray | None) -> dict[str, Metric]:
    floors = _values(ranks.by_chance())
    metrics = {}
    for name, (value, parts) in _values(ranks).items():
        span = None if draws is None or parts is None else interval(mean_draws(draws, parts, ranks.video))
        metrics[name] = Metric(value=value, interval=span, floors={"chance": floors[name][0]})
    return metrics


def _tied(ranks: Mapping[str, Ranks]) -> dict[str, Metric]:
    return {
        f"{direction}_{metric}_{end}": Metric(value=value)
        for direction, direction_ranks in ranks.items()
        for end, is_lucky in (("lowest", False), ("highest", True))
        for metric, (value, _) in _values(direction_ranks.broken(is_lucky=is_lucky)).items()
        if metric.startswith("r@")
    }
