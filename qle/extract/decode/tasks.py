"""What passes between the engine and its decode processes: tasks out, events back, and the ring that the pixels take.

A task or event is small and travels through a pipe. Pixels lie in a ring of slots in memory that both processes map; a slot
belongs to the worker until a `Frames` event names it, then to the receiver until `Frames.release`. Nothing is locked, so a
process that dies at any instruction leaves nothing held.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from qle.backbones.preprocess import Preprocess
from qle.errors import DecodeError
from qle.types import Box, VideoInfo, VideoSource

HEADER_BYTES = 4096
"""Before the first slot: the worker's counter of signs of life, alone on its page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTask:
    """Find out what a file holds; answered by Probed or Failed."""

    tag: int
    """Chosen by the sender and repeated in every event; unique among tasks in flight."""
    source: VideoSource
    needs_content_box: bool = False
    """Decode a few frames too, and find the black borders."""
    keep_partial: bool = False
    """Take a file that broke off for what is there of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeTask:
    """Decode some rows of one video; answered by any number of Frames, then Finished or Failed."""

    tag: int
    info: VideoInfo
    decoder: str
    """What `choose_decoder` gave."""
    rows: np.ndarray
    """(rows,) int64: their numbers in the video, increasing; they come back with the pixels."""
    frame_index: np.ndarray
    """(rows,) int64: the frame that each row describes, non-decreasing (RowPlan.frame_index[rows])."""
    geometries: tuple[Preprocess, ...]
    """Every frame is decoded once and prepared in each of these ways."""
    content_box: Box | None = None
    """Applied where a geometry crops borders."""

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.frame_index) or len(self.rows) == 0:
            raise ValueError(
                f"a task needs one frame number per row, got {len(self.rows)} rows, {len(self.frame_index)} numbers"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    tag: int
    info: VideoInfo
    content_box: Box | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Prepared pixels in a slot of the ring: copy them, then release. Slots that stay taken stop the worker."""

    tag: int
    rows: np.ndarray
    """(n,) int64 row numbers."""
    images: tuple[np.ndarray, ...]
    """One (n, height, width, 3) uint8 view for each geometry of the task, read-only."""
    damaged: np.ndarray
    """Those of `rows` whose frame the decoder calls damaged."""
    release: Callable[[], None] = field(repr=False)
    """Gives the slot back; call once, do not look at `images` afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    tag: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    tag: int
    error: DecodeError


Event = Probed | Frames | Finished | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """How the shared memory of one worker is divided."""

    num_slots: int
    rows_per_slot: int
    frame_bytes: int
    """Bytes of one row, summed over all geometries."""

    @property
    def slot_bytes(self) -> int:
        return self.rows_per_slot * self.frame_bytes

    @property
    def size_bytes(self) -> int:
        return HEADER_BYTES + self.num_slots * self.slot_bytes

    def images(self, memory: np.ndarray, slot: int, shapes: tuple[tuple[int, int], ...]) -> tuple[np.ndarray, ...]:
        """(rows_per_slot, height, width, 3) views of one slot, one after another for each (height, width)."""
        start = HEADER_BYTES + slot * self.slot_bytes
        views = []
        for height, width in shapes:
            stop = start + self.rows_per_slot * height * width * 3
            views.append(memory[start:stop].reshape(self.rows_per_slot, height, width, 3))
            start = stop
        return tuple(views)


def bytes_per_row(geometries: tuple[Preprocess, ...]) -> int:
    """What one row takes in a slot."""
    return sum(height * width * 3 for height, width in (geometry.output_shape for geometry in geometries))
