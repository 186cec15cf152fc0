"""Frames of a video, in whatever order ranges deliver them -> whole clips -> batches of constant shape.

A clip is complete when all rows that it reads have come. Only clips at the open ends of a range wait, so what is held is a
few clips for each range in flight, however long the video is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from qle.extract.engine.clips import ClipPlan

Owner = TypeVar("Owner")


class ClipAssembler:
    """Collects the clips that one video still needs for one backbone."""

    def __init__(self, plan: ClipPlan, is_done: np.ndarray, frame_shape: tuple[int, int]) -> None:
        clips = plan.clips_for(is_done)
        self.plan = plan
        self.rows_needed = plan.rows_for(clips)
        self._is_wanted = np.zeros(plan.num_clips, dtype=bool)
        self._is_wanted[clips] = True
        self._shape = (plan.context.length, *frame_shape, 3)
        self._open: dict[int, tuple[np.ndarray, set[int]]] = {}

    def add(self, row: int, image: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Places the frame of this row; yields (clip, frames) for each clip that it completes. The frames may be a view of
        `image`: copy them before the next step."""
        for clip in self.plan.readers(row):
            if not self._is_wanted[clip]:
                continue
            if self._shape[0] == 1:
                self._is_wanted[clip] = False
                yield clip, image[None]
                continue
            if clip not in self._open:
                self._open[clip] = np.empty(self._shape, dtype=np.uint8), set(self.plan.rows(clip).tolist())
            frames, missing = self._open[clip]
            offset = row - self.plan.start(clip)
            is_last = row == self.plan.num_rows - 1  # which a clip longer than the video repeats
            frames[offset : None if is_last else offset + 1] = image
            missing.discard(row)
            if not missing:
                del self._open[clip]
                self._is_wanted[clip] = False
                yield clip, frames


@dataclass(slots=True)
class Batch(Generic[Owner]):
    """Clips of any videos, stacked. Slots beyond `len(clips)` are padding, so that every batch has the same shape."""

    frames: np.ndarray
    """(clips, length, height, width, 3) uint8."""
    clips: list[tuple[Owner, int]] = field(default_factory=list)
    """Whose clip stands in each slot, and its number."""

    @property
    def is_full(self) -> bool:
        return len(self.clips) == len(self.frames)

    def add(self, owner: Owner, clip: int, frames: np.ndarray) -> None:
        self.frames[len(self.clips)] = frames
        self.clips.append((owner, clip))

    def pad(self) -> None:
        """Fills the empty slots with black: what they give is never read."""
        self.frames[len(self.clips) :] = 0
