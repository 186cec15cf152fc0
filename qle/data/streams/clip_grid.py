"""Rows of a video -> clips of equal length, by averaging: which rows make which clip. No torch.

    times of rows + edges of clips -> owner of each row -> mean of the usable rows of each clip

A row belongs to the clip in which it is shown. Rows of frames are stamped with the frame that was on screen, a little before
the time they were taken for, and clips of imported features with their middle: a quarter of a row's length is added before a
row is given to a clip, which puts both where they belong. A clip without a row of its own shows what is near its middle.
"""

from dataclasses import dataclass

import numpy as np

from qle.data.rows import HOLE_FACTOR, RowChoice

SHIFT = 0.25
"""Share of the usual distance between rows by which a row may lie before a clip and still belong to it."""


def clip_edges(duration_s: float, clip_s: float) -> np.ndarray:
    """(clips + 1,) float64 from 0 to the end. The last clip lasts between half and one and a half times `clip_s`, since a
    video of 150.03 s has 75 clips of 2 s and no 76th of a single frame."""
    count = max(1, int(np.ceil(duration_s / clip_s - 0.5)))
    return np.append(np.arange(count) * clip_s, duration_s)


def usual_row_s(choice: RowChoice) -> float:
    """Usual distance between rows; all of the video where it has one row."""
    gaps_s = np.diff(choice.times_s)
    gaps_s = gaps_s[gaps_s > 0]
    return float(np.sort(gaps_s)[len(gaps_s) // 2]) if len(gaps_s) else choice.duration_s


@dataclass(frozen=True, slots=True)
class ClipRows:
    """Which rows make which clip."""

    owner: np.ndarray
    """(rows,) int64: clip that each row belongs to, non-decreasing."""
    shown: np.ndarray
    """(clips,) int64: the row that a clip without a row of its own shows; -1 where it has some, or none is near."""

    def range_of(self, first: int, stop: int) -> tuple[int, int]:
        """First row, and the one behind the last, of what the clips first .. stop - 1 need."""
        begin, end = np.searchsorted(self.owner, [first, stop]).tolist()
        shown = self.shown[first:stop][self.shown[first:stop] >= 0]
        if len(shown) and begin == end:
            return int(shown.min()), int(shown.max()) + 1
        return min([begin, *shown.tolist()]), max([end, *(shown + 1).tolist()])

    def part(self, rows: tuple[int, int], clips: tuple[int, int]) -> "ClipRows":
        """The same of some rows and some clips, both counted from 0; rows of other clips have owner -1 or one behind the last."""
        owner = np.clip(self.owner[rows[0] : rows[1]] - clips[0], -1, clips[1] - clips[0])
        shown = self.shown[clips[0] : clips[1]]
        return ClipRows(owner, np.where(shown >= 0, shown - rows[0], -1))


def clip_rows(choice: RowChoice, edges_s: np.ndarray) -> ClipRows:
    """Rows of a video to the clips between these edges."""
    num_clips, row_s = len(edges_s) - 1, usual_row_s(choice)
    owner = np.searchsorted(edges_s, choice.times_s + SHIFT * row_s, side="right") - 1
    owner = np.clip(owner, 0, num_clips - 1).astype(np.int64)
    shown = np.full(num_clips, -1, dtype=np.int64)
    empty = np.flatnonzero(np.bincount(owner, minlength=num_clips) == 0)
    middle_s = (edges_s[empty] + edges_s[empty + 1]) / 2
    row = np.clip(np.searchsorted(choice.edges_s, middle_s, side="right") - 1, 0, choice.num_rows - 1)
    is_near = np.abs(choice.times_s[row] - middle_s) <= HOLE_FACTOR * row_s
    shown[empty[is_near]] = row[is_near]
    return ClipRows(owner, shown)


def averaged(values: np.ndarray, usable: np.ndarray, rows: ClipRows) -> tuple[np.ndarray, np.ndarray]:
    """(clips, dim) float32, zeros where no row says anything, and (clips,) bool.

    values: (rows, dim) float32. Rows that are not usable take no part.
    """
    num_clips = len(rows.shown)
    kept = usable & (rows.owner >= 0) & (rows.owner < num_clips)
    counts = np.bincount(rows.owner[kept], minlength=num_clips)
    is_known = counts > 0
    clips = np.zeros((num_clips, values.shape[1]), dtype=np.float32)
    if is_known.any():
        begins = (np.cumsum(counts) - counts)[is_known]
        clips[is_known] = np.add.reduceat(values[kept], begins, axis=0, dtype=np.float32) / counts[is_known][:, None]
    shows = np.flatnonzero(rows.shown >= 0)
    shows = shows[usable[rows.shown[shows]]]
    clips[shows], is_known[shows] = values[rows.shown[shows]], True
    return clips, is_known


def pool_bounds(num_clips: int, num_bins: int) -> np.ndarray:
    """(bins + 1,) int64: bin k is the mean of clips bounds[k] .. bounds[k + 1]; there are no more bins than clips."""
    bins = min(num_bins, num_clips)
    return np.round(np.linspace(0, num_clips, bins + 1)).astype(np.int64)


def pooled(values: np.ndarray, usable: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bins, dim) float32 mean of the usable clips of each bin, zeros where there is none, and (bins,) bool."""
    counts = np.add.reduceat(usable.astype(np.int64), bounds[:-1])
    sums = np.add.reduceat(np.where(usable[:, None], values, 0), bounds[:-1], axis=0, dtype=np.float32)
    return sums / np.maximum(counts, 1)[:, None].astype(np.float32), counts > 0
