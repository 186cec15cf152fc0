"""Which rows stand together in one forward pass, and which of them are kept.

A video transformer sees clips; the cache stores rows. Clip i of a video with N rows starts at row i*step, except that the
last clip is moved back to end with the video, so that no clip is padded when N >= length. Of each clip only the rows with
context on both sides are kept (`centre`: length 8, step 4 keeps rows 2..5; the first clip also keeps its head, the last
its tail), so every row is kept by exactly one clip. `tile` (step == length) and `single` (length == step == 1) are the same
rule with no margin. A video shorter than a clip repeats its last row, as official evaluation of these models does.

Everything is closed form: a plan over a million rows holds three integers, and clips do not depend on where work was split.
"""

from dataclasses import dataclass

import numpy as np

from qle.types import ClipContext


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """The clips of one video."""

    num_rows: int
    context: ClipContext

    @property
    def num_clips(self) -> int:
        beyond_first = max(0, self.num_rows - self.context.length)
        return 1 + -(-beyond_first // self.context.step)

    @property
    def _margin(self) -> int:
        return (self.context.length - self.context.step) // 2

    def start(self, clip: int) -> int:
        """First row that the clip reads."""
        return min(clip * self.context.step, max(0, self.num_rows - self.context.length))

    def rows(self, clip: int) -> np.ndarray:
        """(length,) row numbers that the clip reads; the last row repeats where the video is shorter than a clip."""
        return np.minimum(self.start(clip) + np.arange(self.context.length), self.num_rows - 1)

    def kept(self, clip: int) -> range:
        """Row numbers that this clip alone is responsible for."""
        first = 0 if clip == 0 else clip * self.context.step + self._margin
        is_last = clip == self.num_clips - 1
        return range(first, self.num_rows if is_last else (clip + 1) * self.context.step + self._margin)

    def keeper(self, rows: np.ndarray) -> np.ndarray:
        """For each row the clip that keeps it."""
        keepers: np.ndarray = np.clip((np.asarray(rows) - self._margin) // self.context.step, 0, self.num_clips - 1)
        return keepers

    def readers(self, row: int) -> range:
        """The clips that read this row."""
        length, step = self.context.length, self.context.step
        last_clip = self.num_clips - 1
        first = max(0, -(-(row - length + 1) // step))
        stop = row // step + 1
        if row >= self.start(last_clip):
            stop = last_clip + 1
        return range(min(first, last_clip), min(stop, last_clip + 1))

    def clips_for(self, is_done: np.ndarray) -> np.ndarray:
        """Clips that must run so that every row that is not done gets its numbers."""
        return np.unique(self.keeper(np.flatnonzero(~is_done)))

    def rows_for(self, clips: np.ndarray) -> np.ndarray:
        """Sorted row numbers that those clips read."""
        is_read = np.zeros(self.num_rows, dtype=bool)
        for offset in range(self.context.length):
            starts = np.minimum(clips * self.context.step, max(0, self.num_rows - self.context.length))
            is_read[np.minimum(starts + offset, self.num_rows - 1)] = True
        return np.flatnonzero(is_read)
