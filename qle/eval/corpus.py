"""Moments of a whole corpus: one ranked list of (video, start, end) a query, over all videos. No torch.

    CorpusTruth + CorpusAnswers -> stage 1 (videos), stage 2 in the right video (oracle), the chain -> Report

A moment is right where its video is and it overlaps one of the windows there by tIoU 0.5 (0.7). R@K is the share of queries with
a right moment among the first K; where moments have equal scores, the chance of it over all their orders. Of a query whose
moments nobody knows (a summary of a video) only the video is measured. The floor is chance: videos in random order, in each of
them the one stretch, relative to the length, that is right most often.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qle.data.annotations import Window
from qle.errors import AnnotationError
from qle.eval.bootstrap import LEVEL, interval, mean_draws, video_draws
from qle.eval.floors import best_span
from qle.eval.moments.report import Beside
from qle.eval.ranking import mean_known
from qle.eval.report import Metric, Report
from qle.eval.retrieval import Ranks
from qle.eval.windows import TIOU_SLACK, share_at_least
from qle.segments.spans import iou

DEPTHS = (1, 5, 10, 100)
TIOU = (0.5, 0.7)
PROTOCOL = {
    "videos": "Stage 1: part of the queries with a right video among the first K (r@K); medr: median rank of the best right "
    "video, counted from 1; ties count by chance, and so does the order of videos behind the shortlist.",
    "shortlist": "What a shortlist by mean frames loses: topN_in_S, part of the N best videos of exhaustive scoring that a "
    "shortlist of S holds; exhaustive_r@K: stage 1 without a shortlist.",
    "oracle": "Stage 2 alone: moments of the right video (of the first named, where several are right), as if stage 1 never "
    "erred. rN@m as of moment heads.",
    "chain": "Both: rK@m, part of the queries with a moment of a right video that overlaps a window there by tIoU >= m among "
    "the first K of one list over all videos. video_r@K: the same without the overlap.",
    "chain_video_only": "The chain with lambda 1: videos by similarity, moments of a video among themselves.",
    "chain_moment_only": "The chain with lambda 0: moments of the best videos by their probability alone.",
    "floors": "chance: videos in random order, in each the stretch that is right most often; in the right video just that.",
    "interval": f"{LEVEL:.0%} percentile interval, resampling videos.",
}

Values = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusTruth:
    """One query and where it happens."""

    qid: str
    windows: Mapping[str, Sequence[Window]]
    """By video; no window where only the video is known."""
    durations_s: Mapping[str, float]
    """Length of each of these videos."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusList:
    """What is answered to one query, best first."""

    videos: Sequence[str]
    start_s: np.ndarray
    """(moments,) float64"""
    end_s: np.ndarray
    score: np.ndarray
    """(moments,) float64, falling; equal ones are a tie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusAnswers:
    """The answers to all queries, in their order. What is None is not measured."""

    videos: Ranks | None = None
    """Stage 1: where the best right video stands among all (`Ranks.video` is not looked at)."""
    oracle: Sequence[CorpusList] | None = None
    """Stage 2 asked of the first right video alone."""
    chain: Sequence[CorpusList] | None = None
    more: Mapping[str, Values] = field(default_factory=dict)
    """Further groups of numbers of each query (recall of a shortlist), by group and name."""


def corpus_metrics(
    truth: Sequence[CorpusTruth],
    answers: CorpusAnswers,
    *,
    num_videos: int,
    beside: Beside,
    provenance: Mapping[str, Any] | None = None,
) -> Report:
    """`num_videos`: of the corpus. AnnotationError where there is nothing to measure."""
    if not truth or any(not asked.windows for asked in truth):
        raise AnnotationError(
            "nothing to evaluate: every query of a corpus needs at least one video that it is true of"
        )
    numbers: dict[str, int] = {}
    video = np.array([numbers.setdefault(next(iter(asked.windows)), len(numbers)) for asked in truth])
    has_draws = beside.num_bootstrap > 0 and len(numbers) > 1
    draws = video_draws(len(numbers), beside.num_bootstrap, beside.seed) if has_draws else None
    span = own_best_span(truth) if beside.span is None else beside.span
    floors = _floors(truth, span, num_videos)
    groups = {name: values for name, values in _groups(truth, answers).items() if values}
    metrics = {
        group: {
            name: Metric(
                value=mean_known(own),
                interval=None if draws is None else interval(mean_draws(draws, own, video)),
                floors={"chance": mean_known(floors[_kind(group)][name])}
                if name in floors.get(_kind(group), {})
                else {},
            )
            for name, own in values.items()
        }
        for group, values in groups.items()
    }
    if answers.videos is not None:
        chance = answers.videos.by_chance()
        metrics["videos"]["medr"] = Metric(
            value=float(np.median(answers.videos.expected() + 1)),
            floors={"chance": float(np.median(chance.expected() + 1))},
        )
    return Report(
        metrics=metrics,
        per_query=(),
        counts={
            "pairs": len(truth),
            "queries": len(truth),
            "videos": num_videos,
            "asked_videos": len(numbers),
            "queries_without_windows": sum(not any(asked.windows.values()) for asked in truth),
        },
        protocol={name: text for name, text in PROTOCOL.items() if name in (*groups, "floors", "interval")},
        settings={
            "num_bootstrap": beside.num_bootstrap if has_draws else 0,
            "seed": beside.seed,
            "best_span": list(span),
            "best_span_from": "the evaluated annotations" if beside.span is None else "training",
            **(provenance or {}),
        },
    )


def chain_values(truth: Sequence[CorpusTruth], said: Sequence[CorpusList]) -> Values:
    """The numbers of `CorpusAnswers.chain` for each query, for further chains (`more`) and for fitting."""
    return _of_queries([_chain(asked, answer) for asked, answer in zip(truth, said, strict=True)])


def own_best_span(truth: Sequence[CorpusTruth]) -> tuple[float, float]:
    """The best span for the very queries that are measured: no constant answer is right more often."""
    return best_span(
        [(windows, asked.durations_s[video]) for asked in truth for video, windows in asked.windows.items()]
    )


def _kind(group: str) -> str:
    """Whose floors stand beside it."""
    return "chain" if group.startswith("chain_") else group


def _groups(truth: Sequence[CorpusTruth], answers: CorpusAnswers) -> dict[str, Values]:
    values_of: dict[str, Values] = {}
    if answers.videos is not None:
        values_of["videos"] = {f"r@{depth}": answers.videos.hit(depth) for depth in DEPTHS}
    if answers.oracle is not None:
        values_of["oracle"] = _of_queries(
            [_oracle(asked, said) for asked, said in zip(truth, answers.oracle, strict=True)]
        )
    if answers.chain is not None:
        values_of["chain"] = chain_values(truth, answers.chain)
    return values_of | {group: dict(values) for group, values in answers.more.items()}


def _chain(asked: CorpusTruth, said: CorpusList) -> dict[str, float]:
    """Right videos, then right moments, at every depth."""
    is_video = np.array([video in asked.windows for video in said.videos], dtype=bool)
    values = {f"video_r@{depth}": chance_of_hit(said.score, is_video, depth) for depth in DEPTHS}
    overlap = np.zeros(len(said.videos))
    for rank in np.flatnonzero(is_video).tolist():
        overlap[rank] = _best_overlap(said, rank, asked.windows[said.videos[rank]])
    is_known = any(asked.windows.values())
    for level in TIOU:
        is_right = overlap >= level - TIOU_SLACK
        values |= {
            f"r{depth}@{level}": chance_of_hit(said.score, is_right, depth) if is_known else math.nan
            for depth in DEPTHS
        }
    return values


def _oracle(asked: CorpusTruth, said: CorpusList) -> dict[str, float]:
    windows = next(iter(asked.windows.values()))
    best = np.array([_best_overlap(said, rank, windows) for rank in range(min(len(said.videos), 5))] or [0.0])
    best = np.maximum.accumulate(best) if windows else np.full(len(best), np.nan)
    shares = {
        f"r{depth}@{level}": float(share_at_least(best[min(depth, len(best)) - 1], level))
        for depth in (1, 5)
        for level in TIOU
    }
    return {**shares, "miou": float(best[0])}


def _best_overlap(said: CorpusList, rank: int, windows: Sequence[Window]) -> float:
    if not windows:
        return 0.0
    span = np.array([[said.start_s[rank], said.end_s[rank]]])
    return float(iou(span, np.asarray(windows, dtype=np.float64)).max())


def chance_of_hit(score: np.ndarray, is_right: np.ndarray, depth: int) -> float:
    """That one of the first `depth` is right, over all orders of equal scores. Scores fall."""
    if not is_right[:depth].any() and (len(score) <= depth or score[depth] < score[depth - 1]):
        return 0.0
    edge = score[min(depth, len(score)) - 1]
    before, level = score > edge, score == edge
    if is_right[before].any():
        return 1.0
    slots, size, right = depth - int(before.sum()), int(level.sum()), int(is_right[level].sum())
    if slots >= size:
        return float(right > 0)
    return 1.0 - math.comb(size - right, slots) / math.comb(size, slots)


def _floors(truth: Sequence[CorpusTruth], span: tuple[float, float], num_videos: int) -> dict[str, Values]:
    """What floors reach: videos in random order, with the same stretch of each."""
    rows: dict[str, list[dict[str, float]]] = {"videos": [], "oracle": [], "chain": []}
    for asked in truth:
        overlap = {
            video: _best_overlap(_stretch(span, asked.durations_s[video]), 0, windows)
            for video, windows in asked.windows.items()
        }
        is_known = any(asked.windows.values())
        by_video = {depth: _drawn(len(overlap), num_videos, depth) for depth in DEPTHS}
        chain = {f"video_r@{depth}": chance for depth, chance in by_video.items()}
        for level in TIOU:
            num_right = sum(value >= level - TIOU_SLACK for value in overlap.values())
            chain |= {
                f"r{depth}@{level}": _drawn(num_right, num_videos, depth) if is_known else math.nan for depth in DEPTHS
            }
        rows["chain"].append(chain)
        rows["videos"].append({f"r@{depth}": chance for depth, chance in by_video.items()})
        first = next(iter(asked.windows))
        rows["oracle"].append(_oracle(asked, _stretch(span, asked.durations_s[first])))
    return {group: _of_queries(some) for group, some in rows.items()}


def _stretch(span: tuple[float, float], duration_s: float) -> CorpusList:
    start, end = (np.array([part * duration_s]) for part in span)
    return CorpusList(videos=("",), start_s=start, end_s=end, score=np.ones(1))


def _drawn(num_right: int, num_videos: int, depth: int) -> float:
    """The chance that one of `depth` videos that are drawn is right."""
    if depth >= num_videos:
        return float(num_right > 0)
    return 1.0 - math.comb(max(num_videos - num_right, 0), depth) / math.comb(num_videos, depth)


def _of_queries(rows: Sequence[Mapping[str, float]]) -> Values:
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}
