"""What evaluation begins with: a track of scores beside the annotation that it answers, and many of them as flat columns.

    list[ScoredQuery] -> RowTable (what is fixed) + logits (what depends on the smoothing) -> metrics

Metrics are array programs over columns: the rows of all (video, query) pairs lie end to end, pair after pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from qle.data.annotations import Annotation
from qle.errors import AnnotationError
from qle.segments.spans import mask_of
from qle.segments.tracks import Localization, Spans, cut, guess_rows, presence_at, presence_logit, sigmoid, smooth
from qle.types import ScoreTrack


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredQuery:
    """One query, one video, what is true and what the head says."""

    annotation: Annotation
    video: str
    """Key in the cache."""
    track: ScoreTrack


@dataclass(frozen=True, kw_only=True)
class RowTable:
    """Rows of (video, query) pairs end to end."""

    first: np.ndarray
    """(pairs + 1,) int64: pair k has rows first[k] .. first[k + 1] - 1."""
    owner: np.ndarray
    """(rows,) int64: number of the pair."""
    start_s: np.ndarray
    """(rows,) float64"""
    end_s: np.ndarray
    label: np.ndarray
    """(rows,) bool: windows cover at least half of the row."""
    usable: np.ndarray
    """(rows,) bool: the frame was on screen and the logit is finite; the others are not measured."""
    video: np.ndarray
    """(pairs,) int64: number of its video in `videos`."""
    videos: tuple[str, ...]

    @property
    def num_pairs(self) -> int:
        return len(self.video)

    @cached_property
    def seconds(self) -> np.ndarray:
        """(rows,) float64: of usable rows; 0 of others."""
        return np.where(self.usable, self.end_s - self.start_s, 0.0)

    def slices(self) -> list[slice]:
        """The rows of each pair."""
        return [
            slice(start, stop) for start, stop in zip(self.first[:-1].tolist(), self.first[1:].tolist(), strict=True)
        ]

    def peak(self, logit: np.ndarray) -> np.ndarray:
        """(pairs,): the highest value of a usable row; -inf where there is none. No pair is without rows."""
        return np.asarray(np.maximum.reduceat(np.where(self.usable, logit, -np.inf), self.first[:-1]))


def row_table(scored: Sequence[ScoredQuery]) -> RowTable:
    """AnnotationError where nothing is left to measure, or nobody has told what is true."""
    if not scored:
        raise AnnotationError("nothing to evaluate: no annotation with a scored video")
    for query in scored:
        if not query.annotation.is_labelled:
            raise AnnotationError(
                f"annotation {query.annotation.qid!r} of {query.annotation.video!r} is not labelled (a hidden test set?): "
                "it can be localized but not measured"
            )
    tracks = [query.track for query in scored]
    lengths = np.array([len(track.logit) for track in tracks])
    numbers: dict[str, int] = {}
    video = np.array([numbers.setdefault(query.video, len(numbers)) for query in scored])
    return RowTable(
        first=np.concatenate([[0], np.cumsum(lengths)]),
        owner=np.repeat(np.arange(len(scored)), lengths),
        start_s=np.concatenate([track.edges_s[:-1] for track in tracks]),
        end_s=np.concatenate([track.edges_s[1:] for track in tracks]),
        label=np.concatenate([mask_of(query.annotation.windows, query.track.edges_s) for query in scored]),
        usable=np.concatenate([track.valid & np.isfinite(track.logit) for track in tracks]),
        video=video,
        videos=tuple(numbers),
    )


def smoothed_logits(scored: Sequence[ScoredQuery], smoothing_s: float) -> np.ndarray:
    """(rows,) float64; NaN in videos without a usable row."""
    tracks = [query.track for query in scored]
    return np.concatenate([smooth(track.logit, track.edges_s, track.valid, smoothing_s) for track in tracks])


def probabilities(log_odds: np.ndarray) -> np.ndarray:
    """(rows,) float32, as `segments.probability_of` gives them: 0 where nothing is known."""
    return np.where(np.isnan(log_odds), 0.0, sigmoid(log_odds)).astype(np.float32)


def cut_rows(table: RowTable, probability: np.ndarray, localization: Localization) -> Spans:
    """Moments of all pairs, as `segments.moments_of` gives them."""
    return cut(probability, table.start_s, table.end_s, table.owner, table.usable, localization)


def presences(scored: Sequence[ScoredQuery], peak: np.ndarray, localization: Localization) -> np.ndarray:
    """(pairs,) float64, as `segments.presence_of` gives it. `peak`: highest smoothed logit of each pair, -inf where there is
    none: of a video without a usable row nothing is known."""
    return np.array(
        [
            presence_at(presence_logit(query.track, highest), query.track, localization)
            if np.isfinite(highest)
            else 0.0
            for query, highest in zip(scored, peak.tolist(), strict=True)
        ]
    )


def scaled(spans: Spans, presence: np.ndarray, localization: Localization) -> Spans:
    """No score above the presence of its pair, as `segments.moments_of` gives them."""
    if not localization.presence_threshold or not len(spans.owner):
        return spans
    best = np.zeros(len(presence))
    np.maximum.at(best, spans.owner, spans.score)
    factor = np.where(best > presence, presence / np.where(best > 0, best, 1.0), 1.0)
    return replace(spans, score=spans.score * factor[spans.owner])


def where_present(spans: Spans, presence: np.ndarray, localization: Localization) -> Spans:
    """Those of pairs whose presence reaches the threshold."""
    kept = presence[spans.owner] >= localization.presence_threshold
    return Spans(owner=spans.owner[kept], start_s=spans.start_s[kept], end_s=spans.end_s[kept], score=spans.score[kept])


def with_guesses(table: RowTable, spans: Spans, log_odds: np.ndarray) -> Spans:
    """One more span for each pair that has none, as `segments.best_moment` gives it: for rank-1 metrics only."""
    without = np.flatnonzero(np.bincount(spans.owner, minlength=table.num_pairs) == 0)
    rows = np.array([guess_rows(log_odds[table.first[k] : table.first[k + 1]]) for k in without], dtype=np.int64)
    rows = rows.reshape(-1, 2) + table.first[without, None]
    owner = np.concatenate([spans.owner, without])
    order = np.argsort(owner, kind="stable")
    return Spans(
        owner=owner[order],
        start_s=np.concatenate([spans.start_s, table.start_s[rows[:, 0]]])[order],
        end_s=np.concatenate([spans.end_s, table.end_s[rows[:, 1] - 1]])[order],
        score=np.concatenate([spans.score, np.zeros(len(without))])[order],
    )
