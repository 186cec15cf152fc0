"""Spans of time and the rows that they cover."""

from collections.abc import Sequence

import numpy as np

HALF = 0.5 - 1e-9
"""A row belongs to a window that covers half of it; the rest is rounding, e.g. of a midpoint between two times."""


def row_edges(times_s: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    """(rows + 1,): half way between the times of neighbouring rows; the first and last rows reach to the ends of the video.

    Any number of rows from one on, times that do not decrease. Edges never leave [start_s, end_s], whatever the times.
    """
    times = np.asarray(times_s, dtype=np.float64)
    if not len(times) or not end_s >= start_s or np.any(np.diff(times) < 0):
        raise ValueError(
            f"edges of {len(times)} rows in {start_s}..{end_s}: expected rows, in order, in a forward stretch"
        )
    middle = np.clip((times[1:] + times[:-1]) / 2, start_s, end_s)
    return np.concatenate([[start_s], middle, [end_s]])


def window_cover(windows: Sequence[tuple[float, float]] | np.ndarray, edges_s: np.ndarray) -> np.ndarray:
    """(rows,) float64 in [0, 1]: the part of each row that lies inside any of the windows, which may overlap.

    A row without length (two rows at one time) counts as inside or outside by its time alone.
    """
    edges = np.asarray(edges_s, dtype=np.float64)
    spans = union(windows)
    if not len(spans):
        return np.zeros(len(edges) - 1)
    starts, ends = spans.T
    # Seconds covered up to a time: that is piecewise linear, with corners where windows begin and end.
    covered_s = np.concatenate([[0.0], np.cumsum(ends - starts)])
    seconds = np.diff(np.interp(edges, spans.ravel(), np.repeat(covered_s, 2)[1:-1]))
    width = np.diff(edges)
    inside = np.searchsorted(starts, edges[:-1], side="right") > np.searchsorted(ends, edges[:-1], side="right")
    return np.where(width > 0, np.clip(seconds / np.where(width > 0, width, 1), 0, 1), inside)


def mask_of(windows: Sequence[tuple[float, float]] | np.ndarray, edges_s: np.ndarray) -> np.ndarray:
    """(rows,) bool: True where windows cover at least half of the row. The one rule for labels, in training and evaluation."""
    return np.asarray(window_cover(windows, edges_s) >= HALF)


def spans_of(mask: np.ndarray, edges_s: np.ndarray) -> np.ndarray:
    """(spans, 2): the stretches of consecutive True rows. `mask_of(spans_of(mask, edges), edges)` is `mask` again."""
    bounds = np.flatnonzero(np.diff(np.asarray(mask, dtype=np.int8), prepend=0, append=0))
    return np.asarray(edges_s, dtype=np.float64)[bounds].reshape(-1, 2)


def rows_of(start_s: float, end_s: float, edges_s: np.ndarray) -> slice:
    """The rows that a stretch touches; the row that holds `start_s` where the stretch has no length."""
    last = len(edges_s) - 2
    first = min(max(int(np.searchsorted(edges_s, start_s, side="right")) - 1, 0), last)
    stop = int(np.searchsorted(edges_s, end_s, side="left"))
    return slice(first, min(max(stop, first + 1), last + 1))


def union(windows: Sequence[tuple[float, float]] | np.ndarray) -> np.ndarray:
    """(spans, 2): sorted, with windows that touch or overlap made one, and those without length left out."""
    spans = np.asarray(windows, dtype=np.float64).reshape(-1, 2)
    spans = spans[spans[:, 1] > spans[:, 0]]
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    if not len(spans):
        return spans
    reach = np.maximum.accumulate(spans[:, 1])
    is_first = np.ones(len(spans), dtype=bool)
    is_first[1:] = spans[1:, 0] > reach[:-1]
    first = np.flatnonzero(is_first)
    return np.stack([spans[first, 0], reach[np.append(first[1:], len(spans)) - 1]], axis=1)


def iou(spans_a: np.ndarray, spans_b: np.ndarray) -> np.ndarray:
    """(a, b) float64 in [0, 1]: seconds in both over seconds in either; 0 where neither has length."""
    a = np.asarray(spans_a, dtype=np.float64).reshape(-1, 1, 2)
    b = np.asarray(spans_b, dtype=np.float64).reshape(1, -1, 2)
    return pair_iou(a[..., 0], a[..., 1], b[..., 0], b[..., 1])


def pair_iou(start_a: np.ndarray, end_a: np.ndarray, start_b: np.ndarray, end_b: np.ndarray) -> np.ndarray:
    """The same, pair by pair (arrays that broadcast)."""
    both = np.maximum(np.minimum(end_a, end_b) - np.maximum(start_a, start_b), 0)
    either = (end_a - start_a) + (end_b - start_b) - both
    return np.where(either > 0, np.clip(both / np.where(either > 0, either, 1), 0, 1), 0.0)
