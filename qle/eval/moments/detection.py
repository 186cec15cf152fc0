"""Average precision of ranked spans, one list a query: the mAP of QVHighlights and of everything that follows it. numpy only.

    SpanLists + Windows -> overlaps -> hits (who takes which window, at every tIoU at once) -> AP of each query

One pass over ranks, not over queries: the k-th spans of all queries choose together. A span takes the window that overlaps
it most among those that are still free and whose overlap is not below the threshold (of equals the last); one that finds none
is false. Windows lie end to end, so a query with a thousand of them costs what a thousand queries with one do.
"""

from dataclasses import dataclass

import numpy as np

from qle.eval.windows import Windows

BENCHMARK_TIOU = np.round(np.linspace(0.5, 0.95, 10), 2)
"""0.5, 0.55 ... 0.95: as decimal numbers, not as sums of 0.05."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanLists:
    """Ranked spans of several queries, best first, as a table; NaN behind the last span of a query."""

    start_s: np.ndarray
    """(queries, ranks) float64"""
    end_s: np.ndarray

    @classmethod
    def of(
        cls, owner: np.ndarray, start_s: np.ndarray, end_s: np.ndarray, num_queries: int, num_ranks: int
    ) -> "SpanLists":
        """Lists made of spans that lie end to end, sorted by owner and then best first; those behind `num_ranks` are left out."""
        rank = np.arange(len(owner)) - np.searchsorted(owner, owner, side="left")
        kept = rank < num_ranks
        table = np.full((2, num_queries, num_ranks), np.nan)
        table[:, owner[kept], rank[kept]] = start_s[kept], end_s[kept]
        return cls(start_s=table[0], end_s=table[1])

    @property
    def num_ranks(self) -> int:
        return int(self.start_s.shape[1])


def overlaps(lists: SpanLists, windows: Windows, undefined: float = 0.0) -> np.ndarray:
    """(windows, ranks) float64: intersection over union of each window with each span of its query; -inf where none is.

    `undefined`: where neither has a length (0 / 0).
    """
    start, end = lists.start_s[windows.owner], lists.end_s[windows.owner]
    both = np.maximum(np.minimum(end, windows.end_s[:, None]) - np.maximum(start, windows.start_s[:, None]), 0)
    either = (end - start) + (windows.end_s - windows.start_s)[:, None] - both
    ratio = np.divide(both, either, out=np.full_like(both, undefined), where=either != 0)
    return np.where(np.isnan(start), -np.inf, ratio)


def hits(overlap: np.ndarray, windows: Windows, tiou: np.ndarray) -> np.ndarray:
    """(queries, ranks, tiou) bool: the span takes a window. `overlap`: (windows, ranks)."""
    taken = np.zeros((windows.num_owners, overlap.shape[1], len(tiou)), dtype=bool)
    if not len(windows.owner):
        return taken
    first = np.flatnonzero(np.diff(windows.owner, prepend=-1))
    segment = np.repeat(np.arange(len(first)), np.diff(first, append=len(windows.owner)))
    number = np.arange(len(windows.owner))[:, None]
    is_free = np.ones((len(windows.owner), len(tiou)), dtype=bool)
    for rank in range(overlap.shape[1]):
        is_open = is_free & (overlap[:, rank, None] >= tiou)
        value = np.where(is_open, overlap[:, rank, None], -np.inf)
        is_best = is_open & (value == np.maximum.reduceat(value, first)[segment])
        chosen = np.maximum.reduceat(np.where(is_best, number, -1), first)
        query, level = np.nonzero(chosen >= 0)
        is_free[chosen[query, level], level] = False
        taken[windows.owner[first[query]], rank, level] = True
    return taken


def list_average_precision(taken: np.ndarray, num_windows: np.ndarray) -> np.ndarray:
    """(queries, tiou): interpolated (the best precision at that recall or a higher one), against all windows of the query.

    NaN for queries without windows. Places behind the last span count as false, which changes nothing: recall ends before.
    """
    precision = np.cumsum(taken, axis=1) / np.arange(1, taken.shape[1] + 1)[:, None]
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    total = np.where(num_windows > 0, num_windows, np.nan)
    return np.asarray((best * taken).sum(axis=1) / total[:, None])


def part_of(windows: Windows, chosen: np.ndarray) -> Windows:
    """Only the chosen windows, (windows,) bool; queries keep their numbers."""
    return Windows(
        owner=windows.owner[chosen],
        start_s=windows.start_s[chosen],
        end_s=windows.end_s[chosen],
        num_owners=windows.num_owners,
    )
