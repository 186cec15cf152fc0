"""Moments against windows: matching, precision, recall, F1, mAP, R1, mIoU, boundary errors.

Everything is pooled over (video, query) pairs, and a moment can only match a window of its own pair. Matching is greedy:
the moments of a pair in order of score each take the window that is still free and overlaps most, if tIoU is high enough.
It runs over ranks: the k-th best moments of all pairs are matched at once, at all tIoU together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qle.eval.ranking import average_precision, count, rank
from qle.segments.spans import pair_iou
from qle.segments.tracks import Spans

MAP_TIOU = np.round(np.arange(1, 10) / 10, 1)
"""0.1, 0.2 ... 0.9"""
RANK1_TIOU = (0.3, 0.5, 0.7)
TIOU_SLACK = 1e-9
"""A tIoU that should be 0.3 may come out as 0.29999999999999993; rounding must not decide."""
BOUNDARY_TIOU = 0.5
"""Boundary errors are of the pairs that match at this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """What is true, of several (video, query) pairs; sorted by owner."""

    owner: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray
    num_owners: int

    @classmethod
    def of(cls, windows: Sequence[Sequence[tuple[float, float]]]) -> "Windows":
        """One list of windows a pair; an absent query has an empty one."""
        owner = np.repeat(np.arange(len(windows)), [len(some) for some in windows])
        flat = np.array([window for some in windows for window in some], dtype=np.float64).reshape(-1, 2)
        return cls(owner=owner, start_s=flat[:, 0], end_s=flat[:, 1], num_owners=len(windows))

    @property
    def counts(self) -> np.ndarray:
        """(owners,)"""
        return np.bincount(self.owner, minlength=self.num_owners)


def match(spans: Spans, windows: Windows, tiou: np.ndarray) -> np.ndarray:
    """(spans, tiou) int64: number of the window that each span takes at each tIoU, or -1."""
    order, rank = ranked(spans)
    counts = windows.counts
    first = np.cumsum(counts) - counts
    column = np.arange(counts.max(initial=0))
    is_free = np.repeat((column < counts[:, None])[:, None, :], len(tiou), axis=1)  # (owners, tiou, windows)
    taken = np.full((len(spans.owner), len(tiou)), -1, dtype=np.int64)
    for level in range(int(rank.max(initial=-1)) + 1 if len(column) else 0):
        chosen = order[rank == level]
        owner = spans.owner[chosen]
        number = np.minimum(first[owner, None] + column, len(windows.owner) - 1)
        overlap = pair_iou(
            spans.start_s[chosen, None], spans.end_s[chosen, None], windows.start_s[number], windows.end_s[number]
        )
        open_to = is_free[owner] & (overlap[:, None, :] >= tiou[:, None] - TIOU_SLACK)
        best = np.argmax(np.where(open_to, overlap[:, None, :], -1.0), axis=2)
        pair, threshold = np.nonzero(open_to.any(axis=2))
        is_free[owner[pair], threshold, best[pair, threshold]] = False
        taken[chosen[pair], threshold] = number[pair, best[pair, threshold]]
    return taken


def ranked(spans: Spans) -> tuple[np.ndarray, np.ndarray]:
    """Spans by owner, best first (the earlier of equals), and the rank of each among those of its owner, in that order."""
    order = np.lexsort([spans.start_s, -spans.score, spans.owner])
    owner = spans.owner[order]
    return order, np.arange(len(owner)) - np.searchsorted(owner, owner, side="left")


def mean_average_precision(spans: Spans, taken: np.ndarray, num_windows: int) -> np.ndarray:
    """(tiou,): AP of all moments ranked together, interpolated, against all windows."""
    counts = count(rank(spans.score), (taken >= 0).T)
    return average_precision(counts, num_windows, is_interpolated=True)


def query_average_precision(spans: Spans, taken: np.ndarray, windows: Windows) -> np.ndarray:
    """(owners,): each query's own AP, averaged over tIoU (the mAP of QVHighlights); NaN for absent queries."""
    order, _ = ranked(spans)
    bounds = np.searchsorted(spans.owner[order], np.arange(windows.num_owners + 1))
    counts = windows.counts
    values = np.full(windows.num_owners, np.nan)
    for owner in np.flatnonzero(counts):
        own = order[bounds[owner] : bounds[owner + 1]]
        hits = count(rank(spans.score[own]), (taken[own] >= 0).T)
        values[owner] = average_precision(hits, counts[owner], is_interpolated=True).mean()
    return values


def best_overlap(spans: Spans, windows: Windows) -> np.ndarray:
    """(owners,): tIoU of the best-ranked span with the window that it overlaps most; 0 without a span, NaN without windows.

    R1@m is the share of these that are at least m, mIoU their mean.
    """
    order, rank = ranked(spans)
    top = np.full(windows.num_owners, -1)
    top[spans.owner[order[rank == 0]]] = order[rank == 0]
    best = np.where(windows.counts > 0, 0.0, np.nan)
    asked = top[windows.owner]
    has = asked >= 0
    chosen = asked[has]
    overlap = pair_iou(spans.start_s[chosen], spans.end_s[chosen], windows.start_s[has], windows.end_s[has])
    np.maximum.at(best, windows.owner[has], overlap)
    return best


def boundary_errors(spans: Spans, windows: Windows, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For the matched spans: |start error| and |end error| in seconds, and their owners. `taken`: (spans,) at one tIoU."""
    hit = taken >= 0
    start = np.abs(spans.start_s[hit] - windows.start_s[taken[hit]])
    end = np.abs(spans.end_s[hit] - windows.end_s[taken[hit]])
    return start, end, spans.owner[hit]


def share_at_least(values: np.ndarray, level: float) -> np.ndarray:
    """1 where a value reaches the level (rounding aside), 0 where not, NaN where there is none."""
    return np.where(np.isnan(values), np.nan, np.nan_to_num(values) >= level - TIOU_SLACK)
