"""Which windows of rows an epoch reads, and in which batches: a pure function of (videos, config, seed, epoch). No torch.

    lengths of videos -> windows that cover them, at random phase -> + windows around events -> shuffled -> batches

Every row of every video stands in some window of every epoch. How many windows there are does not depend on the draw, so an
epoch always has the same length; every batch is full (the last one is filled up from the beginning of the epoch), so shapes
never change. Processes take slices of the same global batches: together they see what one process would have seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qle.tasks.rows.batches.config import DataConfig

ORDER, EVENTS = 0, 1
"""Streams of random numbers of an epoch; those of its windows follow behind."""
NUM_STREAMS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowBatch:
    """Windows that are read together. `number` seeds what is drawn for a window, in whichever process it is made."""

    video: np.ndarray
    """(windows,) int64: number of the video."""
    first: np.ndarray
    """(windows,) int64: its first row, among the chosen rows of the video."""
    number: np.ndarray
    """(windows,) int64: place in the epoch."""

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, part: slice) -> "WindowBatch":
        return WindowBatch(video=self.video[part], first=self.first[part], number=self.number[part])


class EpochPlan:
    """Windows of any epoch."""

    def __init__(
        self,
        num_rows: Sequence[int],
        event_rows: Sequence[tuple[int, int, int]],
        config: DataConfig,
        seed: int,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        """num_rows: chosen rows of each video. event_rows: (video, first row, row behind the last) of what happens.
        shard: which process of how many asks."""
        self._rows = np.asarray(num_rows, dtype=np.int64)
        self._events = np.asarray(event_rows, dtype=np.int64).reshape(-1, 3)
        self._config, self._seed, self._shard = config, seed, shard
        self._philox = np.random.Philox(key=[0, 0])
        self._rng = np.random.Generator(self._philox)
        self._cover = [num_windows(int(rows), config.window_rows, config.time_jitter) for rows in self._rows]
        share = config.positive_share if len(self._events) else 0.0
        self._num_events = round(sum(self._cover) * share / (1 - share))

    @property
    def num_batches(self) -> int:
        return -(-(sum(self._cover) + self._num_events) // self._config.windows_per_batch)

    def rng(self, epoch: int, stream: int) -> np.random.Generator:
        """Random numbers of one purpose of one epoch; good until the next call, which sets the same generator anew (a new
        one costs eight times as much). One thread at a time."""
        state: Any = self._philox.state
        state["state"]["key"][:] = self._seed, epoch * (1 << 32) + stream
        state["state"]["counter"][:] = 0
        state["buffer_pos"], state["has_uint32"] = 4, 0
        self._philox.state = state
        return self._rng

    def batches(self, epoch: int) -> list[WindowBatch]:
        """This process's part of each batch."""
        rng = self.rng(epoch, ORDER)
        starts = [
            cover(int(rows), self._config.window_rows, count, rng if self._config.time_jitter else None)
            for rows, count in zip(self._rows, self._cover, strict=True)
        ]
        size = self._config.windows_per_batch
        order = np.resize(rng.permutation(sum(self._cover) + self._num_events), self.num_batches * size)
        video = np.repeat(np.arange(len(self._rows)), self._cover)
        first = np.concatenate(starts)
        if self._num_events:
            around = self._around_events(self.rng(epoch, EVENTS))
            video, first = np.concatenate([video, around[0]]), np.concatenate([first, around[1]])
        epoch_windows = WindowBatch(video=video[order], first=first[order], number=NUM_STREAMS + np.arange(len(order)))
        part = size // self._shard[1]
        begin = self._shard[0] * part
        return [epoch_windows[offset : offset + part] for offset in range(begin, len(order), size)]

    def _around_events(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Windows whose middle lies, give or take a quarter of a window, at a random row of a random event."""
        length = self._config.window_rows
        video, start, stop = self._events[rng.integers(len(self._events), size=self._num_events)].T
        middle = rng.integers(start, stop)
        aside = rng.integers(-(length // 4), length // 4 + 1, size=self._num_events)
        return video, np.clip(middle - length // 2 + aside, 0, np.maximum(self._rows[video] - length, 0))


def num_windows(num_rows: int, length: int, has_jitter: bool) -> int:
    """Windows that cover a video. With jitter they overlap by half a window or more in all: room to move."""
    count = max(1, -(-num_rows // length))
    return count + (has_jitter and count > 1 and count * length - num_rows < length // 2)


def cover(num_rows: int, length: int, count: int, rng: np.random.Generator | None) -> np.ndarray:
    """First rows of `count` windows that together hold every row; their overlaps are evenly spread, or random."""
    if count == 1:
        return np.zeros(1, dtype=np.int64)
    if rng is None:
        return np.round(np.linspace(0, num_rows - length, count)).astype(np.int64)
    spare = count * length - num_rows
    overlaps = np.sort(rng.integers(0, spare + 1, size=count - 2))
    total = np.concatenate([[0], overlaps, [spare]])
    # Where one overlap is longer than a window, the next one would begin before the video does or before this one.
    starts: np.ndarray = np.maximum(np.arange(count) * length - total, 0)
    return starts.astype(np.int64)
