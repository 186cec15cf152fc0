"""Who is measured on moments: a head, a file of predictions, and each floor as if it were a head.

    list[RankedQuery] + Ranking -> MomentTable (what is true) + MomentAnswers (what is said) -> moment_metrics.py

Floors are what can be had without looking. best_span: the one stretch, relative to the length, that is right most often in the
training annotations. whole_video. uniform: ten stretches with random ends; its numbers are means over several draws. For
highlights they score clips: one inside the stretch, all the same, at random.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qle.data.annotations import Annotation
from qle.errors import AnnotationError
from qle.eval.moments.detection import SpanLists
from qle.eval.moments.ranked import RankedQuery
from qle.eval.windows import Windows
from qle.segments.ranked import Ranking, presence_of, ranked_spans
from qle.types import ScoreTrack

MOST_SPANS = 10
"""Spans of a list that count, as benchmarks take them."""
FLOORS = ("best_span", "whole_video", "uniform")


@dataclass(frozen=True, kw_only=True)
class MomentTable:
    """(video, query) pairs and what is true of them."""

    annotations: Sequence[Annotation]
    windows: Windows
    video: np.ndarray
    """(pairs,) int64: number of its video in `videos`."""
    videos: tuple[str, ...]
    duration_s: np.ndarray
    """(pairs,) float64; NaN where nobody knows."""
    rated: np.ndarray
    """Numbers of the pairs whose clips were rated."""

    @property
    def num_pairs(self) -> int:
        return len(self.annotations)

    @property
    def is_labelled(self) -> np.ndarray:
        return np.array([annotation.is_labelled for annotation in self.annotations], dtype=bool)


def moment_table(annotations: Sequence[Annotation], videos: Sequence[str], durations_s: Sequence[float]) -> MomentTable:
    """AnnotationError where nothing can be measured."""
    if not annotations:
        raise AnnotationError("nothing to evaluate: no annotation with an answer")
    for annotation in annotations:
        if not annotation.is_labelled and not _is_rated(annotation):
            raise AnnotationError(
                f"annotation {annotation.qid!r} of {annotation.video!r} is not labelled (a hidden test set?): "
                "it can be localized but not measured"
            )
    numbers: dict[str, int] = {}
    return MomentTable(
        annotations=annotations,
        windows=Windows.of([annotation.windows for annotation in annotations]),
        video=np.array([numbers.setdefault(video, len(numbers)) for video in videos]),
        videos=tuple(numbers),
        duration_s=np.asarray(durations_s, dtype=np.float64),
        rated=np.array([k for k, annotation in enumerate(annotations) if _is_rated(annotation)], dtype=np.int64),
    )


def _is_rated(annotation: Annotation) -> bool:
    """Somebody rated some clip: of a list without clips, raters or ratings there is nothing to measure."""
    return annotation.saliency is not None and bool(np.isfinite(annotation.saliency).any())


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentAnswers:
    """All that somebody says about the pairs."""

    lists: SpanLists
    """(pairs, MOST_SPANS), best first."""
    clip_scores: Sequence[np.ndarray]
    """Scores of the clips of each rated pair: (clips,), any scale; -inf for clips that nobody scored."""
    presence: np.ndarray | None = None
    """(pairs,), any monotone scale for a floor; None where nobody says whether a query happens."""
    has_moment: np.ndarray | None = None
    """(pairs,) bool: people are shown a moment."""


def ranked_table(ranked: Sequence[RankedQuery]) -> MomentTable:
    return moment_table(
        [query.annotation for query in ranked],
        [query.video for query in ranked],
        [query.candidates.duration_s for query in ranked],
    )


def ranked_answers(ranked: Sequence[RankedQuery], ranking: Ranking, table: MomentTable) -> MomentAnswers:
    spans = [ranked_spans(query.candidates, ranking) for query in ranked]
    owner = np.repeat(np.arange(len(spans)), [len(some.score) for some in spans])
    start_s, end_s = (np.concatenate([getattr(some, name) for some in spans]) for name in ("start_s", "end_s"))
    rated = [ranked[number] for number in table.rated.tolist()]
    return MomentAnswers(
        lists=SpanLists.of(owner, start_s, end_s, len(spans), MOST_SPANS),
        clip_scores=[clip_scores(query.candidates.track, query.annotation) for query in rated],
        presence=np.array([presence_of(query.candidates, ranking) for query in ranked]),
        has_moment=np.array([some.score[0] >= ranking.threshold for some in spans], dtype=bool),
    )


def clip_scores(track: ScoreTrack, annotation: Annotation) -> np.ndarray:
    """(clips,) float64: mean score over each rated clip, by seconds; -inf where no usable row lies in it."""
    if annotation.saliency is None:
        raise ValueError(f"annotation {annotation.qid!r} has no ratings")
    num_clips, clip_s = len(annotation.saliency), annotation.clip_s
    usable = track.valid & np.isfinite(track.logit)
    logit = np.where(usable, track.logit, 0.0).astype(np.float64)
    scores = np.full(num_clips, -np.inf)
    if np.allclose(track.edges_s[:-1], np.arange(len(logit)) * clip_s, atol=1e-3 * clip_s):  # rows are these very clips
        own = min(num_clips, len(logit))
        scores[:own] = np.where(usable, logit, -np.inf)[:own]
        return scores
    seconds = np.diff(track.edges_s) * usable
    borders = np.arange(num_clips + 1) * clip_s
    held, total = (
        np.diff(np.interp(borders, track.edges_s, np.concatenate([[0.0], np.cumsum(part)])))
        for part in (seconds, seconds * logit)
    )
    known = held > 1e-6 * clip_s
    # As float32: what rounding of the sums has put between equal clips must not order them.
    scores[known] = (total[known] / held[known]).astype(np.float32)
    return scores


# Floors


def floor_draws(
    table: MomentTable, span: tuple[float, float] | None, *, num_draws: int, seed: int
) -> dict[str, list[MomentAnswers]]:
    """By name, one answer or several to average over; none where the lengths of videos are not known."""
    if not np.isfinite(table.duration_s).all():
        return {}
    draws = {"whole_video": [_constant(table, (0.0, 1.0))]}
    if span is not None:
        draws["best_span"] = [_constant(table, span)]
    rng = np.random.default_rng(seed)
    draws["uniform"] = [_random(table, rng) for _ in range(num_draws)]
    return {name: draws[name] for name in FLOORS if name in draws}


def _constant(table: MomentTable, span: tuple[float, float]) -> MomentAnswers:
    """The same part of each video. To be sure of nothing is what a constant can do for rejection."""
    start, end = (table.duration_s * part for part in span)
    scores = []
    for number in table.rated.tolist():
        borders = np.arange(len(_ratings(table, number)) + 1) * table.annotations[number].clip_s
        middle = (borders[:-1] + borders[1:]) / 2
        scores.append(((start[number] <= middle) & (middle < end[number])).astype(np.float64))
    return MomentAnswers(
        lists=SpanLists(start_s=start[:, None], end_s=end[:, None]),
        clip_scores=scores,
        presence=np.zeros(table.num_pairs),
        has_moment=np.ones(table.num_pairs, dtype=bool),
    )


def _random(table: MomentTable, rng: np.random.Generator) -> MomentAnswers:
    ends = np.sort(rng.random((table.num_pairs, MOST_SPANS, 2)), axis=2) * table.duration_s[:, None, None]
    return MomentAnswers(
        lists=SpanLists(start_s=ends[..., 0], end_s=ends[..., 1]),
        clip_scores=[rng.random(len(_ratings(table, number))) for number in table.rated.tolist()],
        presence=rng.random(table.num_pairs),
        has_moment=np.ones(table.num_pairs, dtype=bool),
    )


def _ratings(table: MomentTable, number: int) -> np.ndarray:
    ratings = table.annotations[number].saliency
    return np.zeros((0, 0)) if ratings is None else ratings
