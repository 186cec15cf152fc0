"""Windows of chosen rows out of a space into buffers: by one copy, checked for numbers that are none. No torch.

Everything that touches stored tokens during training is here, so that packed, mapped and streamed reading give the same
bytes. It is numpy only and can be pickled: processes that read ahead start in a fraction of the time that torch needs.

Types in a batch: float16 and float32 as stored; bfloat16 as its bits (uint16), which the caller views as bfloat16; int8 is
multiplied out to float16, or handed over as it is together with its scales (`raw`).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from qle.cache.files.quantise import SCALE
from qle.cache.reader import Space
from qle.data.rows import RowChoice
from qle.errors import CacheCorruptError
from qle.types import Stream

UNREAD, FINITE, NOT_FINITE = 0, 1, 2
_EXPONENT = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000, "float64": 0x7FF << 52}


class TokenReader:
    """Reads windows of the chosen rows of some videos. Rows are checked when they are read for the first time."""

    def __init__(self, space: Space, rows: Mapping[str, RowChoice], streams: Sequence[str], window_rows: int) -> None:
        self.space, self.window_rows = space, window_rows
        self.videos = tuple(rows)
        self.streams: dict[str, Stream] = {name: space.streams[name] for name in streams}
        self._index = [choice.index for choice in rows.values()]
        self.valid = [choice.valid for choice in rows.values()]
        self._is_whole = [bool(np.all(np.diff(choice.index) == 1)) for choice in rows.values()]
        self._state = [np.zeros(choice.num_rows, dtype=np.uint8) for choice in rows.values()]

    @property
    def num_rows(self) -> list[int]:
        """Chosen rows of each video."""
        return [len(index) for index in self._index]

    @property
    def row_bytes(self) -> int:
        """Stored bytes of one row of all streams, scales included."""
        return sum(stream.row_bytes for name in self.streams for stream in self.stored_streams(name).values())

    def buffer_dtype(self, name: str) -> np.dtype:
        """numpy type of a stream in a buffer."""
        stream = self.streams[name]
        return np.dtype("float16") if stream.dtype == "int8" else stream.stored_dtype

    def stored_streams(self, name: str) -> dict[str, Stream]:
        """The stored arrays that a stream consists of."""
        parts = {name: self.streams[name]}
        if self.streams[name].dtype == "int8":
            parts[SCALE] = self.space.streams[SCALE]
        return parts

    def read(self, video: int, first: int, out: Mapping[str, np.ndarray]) -> np.ndarray:
        """Fill (window_rows, *row shape) buffers from chosen row `first` on; (window_rows,) bool of what may be used.

        Rows behind the end of the video, rows that are not valid and rows whose numbers are not finite become zeros.
        """
        pieces = self._runs(video, first, self.window_rows)
        count = min(self.window_rows, len(self._index[video]) - first)
        opened = self.space.video(self.videos[video])
        for name, buffer in out.items():
            stored = opened.stored(name)
            is_bits = self.streams[name].dtype == "bfloat16"
            for position, start, stop in pieces:
                stored.read(start, stop, buffer[position : position + stop - start], raw=is_bits)
        usable = np.zeros(self.window_rows, dtype=bool)
        usable[:count] = self._check(video, first, count, out)
        if not usable[:count].any() and self.valid[video][first : first + count].any():
            self._check_whole(video)
        for buffer in out.values():
            buffer[~usable] = 0
        return usable

    def read_raw(self, video: int, name: str, first: int, out: np.ndarray) -> None:
        """Chosen rows of one stored array from `first` on, as stored."""
        stored = self.space.video(self.videos[video]).stored(name)
        for position, start, stop in self._runs(video, first, len(out)):
            stored.read(start, stop, out[position : position + stop - start], raw=True)

    def prefetch(self, video: int, first: int) -> None:
        """Let the kernel fetch a window while another one is worked on."""
        pieces = self._runs(video, first, self.window_rows)
        opened = self.space.video(self.videos[video])
        for name in self.streams:
            stored = opened.stored(name)
            for _, start, stop in pieces:
                stored.prefetch(start, stop)

    def no_usable_row(self, video: int) -> CacheCorruptError:
        """What is wrong with a video of which every valid row holds NaN."""
        return CacheCorruptError(
            f"video {self.videos[video]!r} of {self.space.path} has no row of finite tokens: all of its "
            f"{int(self.valid[video].sum())} valid rows hold NaN or inf\n"
            "extract or import it again (qle cache verify --deep tells whether its bytes changed), or leave it out"
        )

    def _check(self, video: int, first: int, count: int, out: Mapping[str, np.ndarray]) -> np.ndarray:
        """(count,) bool: valid, and finite in every stream."""
        state = self._state[video][first : first + count]
        for row in (state == UNREAD).nonzero()[0].tolist():
            is_finite = all(not has_nonfinite(out[name][row], self.streams[name].dtype) for name in out)
            state[row] = FINITE if is_finite else NOT_FINITE
        usable: np.ndarray = (state == FINITE) & self.valid[video][first : first + count]
        return usable

    def _check_whole(self, video: int) -> None:
        """A window without one finite row: is there any in the video?"""
        out = {
            name: np.empty((self.window_rows, *stream.row_shape), self.buffer_dtype(name))
            for name, stream in self.streams.items()
        }
        opened = self.space.video(self.videos[video])
        for first in range(0, len(self._index[video]), self.window_rows):
            for name, buffer in out.items():
                for position, start, stop in self._runs(video, first, self.window_rows):
                    part = buffer[position : position + stop - start]
                    opened.read(name, start, stop, part, raw=self.streams[name].dtype == "bfloat16")
            count = min(self.window_rows, len(self._index[video]) - first)
            if self._check(video, first, count, out).any():
                return
        raise self.no_usable_row(video)

    def _runs(self, video: int, first: int, count: int) -> list[tuple[int, int, int]]:
        """Cached rows behind `count` chosen ones, in pieces without gaps."""
        index = self._index[video][first : first + count]
        return [(0, int(index[0]), int(index[0]) + len(index))] if self._is_whole[video] else runs(index)


def runs(index: np.ndarray) -> list[tuple[int, int, int]]:
    """Consecutive row numbers as (place, start, stop): one copy each."""
    bounds = [0, *(np.flatnonzero(np.diff(index) != 1) + 1).tolist(), len(index)]
    starts = index[bounds[:-1]].tolist() if len(index) else []
    return [(begin, start, start + end - begin) for (begin, end), start in zip(pairwise(bounds), starts, strict=False)]


def has_nonfinite(values: np.ndarray, dtype: str) -> bool:
    """Whether stored values hold NaN or inf, by their exponents: several times faster than np.isfinite of float16."""
    if dtype == "int8":  # multiplied out
        dtype = str(values.dtype)
    exponent = _EXPONENT.get(dtype)
    if exponent is None:
        return False
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    bits = values.view(unsigned) & unsigned.type(exponent)
    return bool(bits.max(initial=0) == exponent)
