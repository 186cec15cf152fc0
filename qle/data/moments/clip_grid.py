"""Rows of a video -> clips of equal length, by averaging: which rows make which clip. No torch.

    times of rows + edges of clips -> owner of each row -> mean of the usable rows of each clip

A row belongs to the clip in which it is shown. Rows of frames are stamped with the frame that was on screen, a little before
the time they were taken for, and clips of imported features with their middle: a quarter of a row's length is added before a
row is given to a clip, which puts both where they belong. A clip without a row of its own shows what is near its middle.
"""

import numpy as np

from qle.data.rows import HOLE_FACTOR, RowChoice

SHIFT = 0.25
"""Of the usual distance between rows."""


def clip_edges(duration_s: float, clip_s: float) -> np.ndarray:
    """(clips + 1,) float64 from 0 to the end. The last clip lasts between half and one and a half times `clip_s`, since a
    video of 150.03 s has 75 clips of 2 s and no 76th of a single frame."""
    count = max(1, int(np.ceil(duration_s / clip_s - 0.5)))
    return np.append(np.arange(count) * clip_s, duration_s)


def usual_row_s(choice: RowChoice) -> float:
    """Usual distance between rows; all of the video where it has one row."""
    gaps_s = np.diff(choice.times_s)
    gaps_s = gaps_s[gaps_s > 0]
    return float(np.median(gaps_s)) if len(gaps_s) else choice.duration_s


def owners(choice: RowChoice, edges_s: np.ndarray) -> np.ndarray:
    """(rows,) int64: number of the clip that each row belongs to, non-decreasing."""
    shown_s = choice.times_s + SHIFT * usual_row_s(choice)
    last = len(edges_s) - 2
    return np.clip(np.searchsorted(edges_s, shown_s, side="right") - 1, 0, last).astype(np.int64)


def averaged(
    values: np.ndarray, usable: np.ndarray, choice: RowChoice, edges_s: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(clips, dim) float32, zeros where no row says anything, and (clips,) bool.

    values: (rows, dim) float32 of the rows of `choice`. Rows that are not usable take no part.
    """
    num_clips = len(edges_s) - 1
    kept, owner = values[usable], owners(choice, edges_s)
    counts = np.bincount(owner[usable], minlength=num_clips)
    found = counts > 0
    clips = np.zeros((num_clips, values.shape[1]), dtype=np.float32)
    if not found.any():
        return clips, found
    begins = (np.cumsum(counts) - counts)[found]
    clips[found] = np.add.reduceat(kept, begins, axis=0, dtype=np.float32) / counts[found][:, None]
    empty = np.flatnonzero(np.bincount(owner, minlength=num_clips) == 0)
    if len(empty):
        near, is_near = _nearest(choice, (edges_s[empty] + edges_s[empty + 1]) / 2)
        is_there = is_near & usable[near]
        clips[empty[is_there]] = values[near[is_there]]
        found[empty[is_there]] = True
    return clips, found


def pool_bounds(num_clips: int, num_bins: int) -> np.ndarray:
    """(bins + 1,) int64: bin k is the mean of clips bounds[k] .. bounds[k + 1]; there are no more bins than clips."""
    bins = min(num_bins, num_clips)
    return np.round(np.linspace(0, num_clips, bins + 1)).astype(np.int64)


def pooled(values: np.ndarray, usable: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bins, dim) float32 mean of the usable clips of each bin, zeros where there is none, and (bins,) bool."""
    counts = np.add.reduceat(usable.astype(np.int64), bounds[:-1])
    sums = np.add.reduceat(np.where(usable[:, None], values, 0), bounds[:-1], axis=0, dtype=np.float32)
    return sums / np.maximum(counts, 1)[:, None].astype(np.float32), counts > 0


def _nearest(choice: RowChoice, wanted_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The row that stands for each time, and whether it does not lie too far away to show what is there."""
    last = choice.num_rows - 1
    row = np.clip(np.searchsorted(choice.edges_s, wanted_s, side="right") - 1, 0, last)
    return row, np.abs(choice.times_s[row] - wanted_s) <= HOLE_FACTOR * usual_row_s(choice)
