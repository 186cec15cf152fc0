"""Candidates of overlapping windows -> candidates of one video: a moment that a border cuts is not several moments.

    spans of every window, in seconds of the video -> parts joined, cut views given up for whole ones -> spans of the video

A window sees what happens inside it, and a moment that goes on behind its border looks as if it ended there. Windows overlap by
half, so whatever is shorter than half a window is seen whole by one of them; what is longer may be cut in all of them.
Therefore: (1) views that are cut at the facing borders of two neighbouring windows, and each cover what both windows saw, are
one moment; (2) a cut view gives way to a whole one that looks just like it from the window of the cut view, and hands on
half of its own probability if that is more; (3) a cut view that nobody explains is believed by half. What two windows both
saw whole is left to suppression (`ranked.suppress`). No torch.
"""

import math
from dataclasses import dataclass

import numpy as np

from qle.segments.spans import pair_iou

TOUCHES = 0.05
"""A span that comes so close to a border of its window, in parts of the window, is cut by it. Heads miss borders by clips: with
ends that are off by 2 % of a window (one standard deviation), made-up moments of several windows are found whole with an average
precision of 0.98 (tIoU 0.5); with 0.02 here it is 0.5, and suppression alone reaches 0.1."""
COVERS = 0.75
"""Two cut views are one moment where each covers at least this part of what both windows saw."""
EXPLAINS_TIOU = 0.5
"""A whole span explains a cut one where, seen through the window of that, both overlap so much."""
LOG_CUT_WEIGHT = math.log(0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedSpans:
    """Spans of a video, in no order."""

    start_s: np.ndarray
    end_s: np.ndarray
    log_probability: np.ndarray
    window: np.ndarray
    """(spans,) int64: the window that saw it; joined spans have a number of their own each, below zero."""


def merged(
    start_s: np.ndarray, end_s: np.ndarray, log_probability: np.ndarray, window: np.ndarray, windows_s: np.ndarray
) -> MergedSpans:
    """`windows_s`: (windows, 2), in order of time."""
    cut_start, cut_end = is_cut(start_s, end_s, window, windows_s)
    joined = _joined(start_s, end_s, log_probability, window, windows_s, cut_start, cut_end)
    start_s, end_s = np.append(start_s, joined.start_s), np.append(end_s, joined.end_s)
    log_probability = np.append(log_probability, joined.log_probability)
    window = np.append(window, joined.window)
    cut = np.append(cut_start | cut_end, joined.is_cut)
    is_explained = np.zeros(len(cut), bool)
    whole = np.flatnonzero(~cut | (window < 0))
    given = log_probability + LOG_CUT_WEIGHT * cut
    for number in np.flatnonzero(cut & (window >= 0)).tolist():
        begin_s, stop_s = windows_s[window[number]]
        seen_start, seen_end = np.clip(start_s[whole], begin_s, stop_s), np.clip(end_s[whole], begin_s, stop_s)
        overlap = pair_iou(seen_start, seen_end, start_s[number], end_s[number])
        explains = whole[(overlap >= EXPLAINS_TIOU) & (window[whole] != window[number])]
        if len(explains):
            is_explained[number] = True
            best = explains[np.argmax(log_probability[explains])]
            given[best] = max(given[best], given[number])
    stays = ~is_explained
    return MergedSpans(
        start_s=start_s[stays], end_s=end_s[stays], log_probability=given[stays], window=window[stays]
    )  # fmt: skip


def is_cut(
    start_s: np.ndarray, end_s: np.ndarray, window: np.ndarray, windows_s: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which spans touch the beginning of their window, and which its end, where the video goes on behind it."""
    begin_s, stop_s = windows_s[window].T
    near_s = TOUCHES * (stop_s - begin_s)
    is_inner_begin, is_inner_stop = begin_s > windows_s[:, 0].min(), stop_s < windows_s[:, 1].max()
    return is_inner_begin & (start_s - begin_s <= near_s), is_inner_stop & (stop_s - end_s <= near_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Joined:
    start_s: np.ndarray
    end_s: np.ndarray
    log_probability: np.ndarray
    window: np.ndarray
    is_cut: np.ndarray
    """It goes on where no window has a view that continues it."""


def _joined(
    start_s: np.ndarray, end_s: np.ndarray, log_probability: np.ndarray, window: np.ndarray, windows_s: np.ndarray,
    cut_start: np.ndarray, cut_end: np.ndarray,
) -> _Joined:  # fmt: skip
    """Chains of views, window after window, each continued by the likeliest; as probable as their least probable part."""
    chain_start, chain_log = start_s.copy(), log_probability.copy()
    open_start, num_parts = cut_start.copy(), np.ones(len(start_s), np.int64)
    has_next = np.zeros(len(start_s), bool)
    by_window = [np.flatnonzero(window == number) for number in range(len(windows_s))]
    for number in range(1, len(windows_s)):
        both_s = windows_s[number, 0], windows_s[number - 1, 1]
        if both_s[1] <= both_s[0]:
            continue
        before = by_window[number - 1]
        before = before[cut_end[before] & _covers(start_s[before], end_s[before], both_s)]
        after = by_window[number]
        after = after[cut_start[after] & _covers(start_s[after], end_s[after], both_s)]
        if not len(before) or not len(after):
            continue
        best = before[np.argmax(chain_log[before])]
        has_next[best] = True
        chain_start[after], open_start[after] = chain_start[best], open_start[best]
        chain_log[after] = np.minimum(chain_log[best], log_probability[after])
        num_parts[after] = num_parts[best] + 1
    ends = np.flatnonzero((num_parts > 1) & ~has_next)
    return _Joined(
        start_s=chain_start[ends], end_s=end_s[ends], log_probability=chain_log[ends],
        window=-1 - np.arange(len(ends)), is_cut=open_start[ends] | cut_end[ends],
    )  # fmt: skip


def _covers(start_s: np.ndarray, end_s: np.ndarray, both_s: tuple[float, float]) -> np.ndarray:
    inside_s = np.minimum(end_s, both_s[1]) - np.maximum(start_s, both_s[0])
    return np.asarray(inside_s >= COVERS * (both_s[1] - both_s[0]))
