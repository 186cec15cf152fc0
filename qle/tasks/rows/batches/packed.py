"""Tokens packed back to back before the first step: in RAM, or in the memory of the device.

    every chosen row, once -> one array a stored stream + a row of zeros -> a batch is a gather by row number

What is packed is packed as it is stored, int8 with its scales, and multiplied out when a batch is gathered, with the same
roundings as the reader. Rows that may not be used are not in any batch: their places point to the row of zeros.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from qle.cache.files import quantise
from qle.cache.files.quantise import SCALE
from qle.tasks.rows.batches.sources import TokenSource, TokenWindows, as_stored, batch_memory, batch_shapes
from qle.tasks.rows.batches.tokens import TokenReader, has_nonfinite
from qle.tasks.rows.batches.windows import WindowBatch

PACK_ROWS = 256
"""Rows that are read at a time while packing."""


class PackedTokens(TokenSource):
    """What both places share: packing, and windows to row numbers."""

    def __init__(self, reader: TokenReader) -> None:
        self._reader = reader
        self._begin = np.concatenate([[0], np.cumsum(reader.num_rows)])
        self._zeros = int(self._begin[-1])
        """Number of the row of zeros."""
        self._usable = np.concatenate([*reader.valid, [False]])
        for name in reader.streams:
            self._pack(name)
        for video, (begin, end) in enumerate(zip(self._begin[:-1], self._begin[1:], strict=True)):
            if not self._usable[begin:end].any():
                raise reader.no_usable_row(video)

    def read(self, batches: Sequence[WindowBatch]) -> Iterator[TokenWindows]:
        for batch in batches:
            row = self._begin[batch.video][:, None] + batch.first[:, None] + np.arange(self._reader.window_rows)
            row = np.where(row < self._begin[batch.video + 1][:, None], row, self._zeros)
            usable = self._usable[row]
            yield TokenWindows(streams=self._gather(np.where(usable, row, self._zeros)), usable=usable)

    @abstractmethod
    def _store(self, part: str, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Make room for all rows of a stored array and the zeros behind them."""

    @abstractmethod
    def _put(self, part: str, first: int, rows: np.ndarray) -> None:
        """Rows of a stored array to their place."""

    @abstractmethod
    def _gather(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Streams of (windows, time) row numbers."""

    def _pack(self, name: str) -> None:
        """Every stored array of a stream; rows that are not finite are struck from the usable ones."""
        for part, stream in self._reader.stored_streams(name).items():
            self._store(part, stream.row_shape, stream.stored_dtype)
            buffer = np.empty((PACK_ROWS, *stream.row_shape), stream.stored_dtype)
            for video, num_rows in enumerate(self._reader.num_rows):
                for first in range(0, num_rows, PACK_ROWS):
                    piece = buffer[: min(PACK_ROWS, num_rows - first)]
                    self._reader.read_raw(video, part, first, piece)
                    begin = int(self._begin[video]) + first
                    self._put(part, begin, piece)
                    if stream.dtype != "int8":
                        bad = [begin + number for number, row in enumerate(piece) if has_nonfinite(row, stream.dtype)]
                        self._usable[bad] = False


class RamTokens(PackedTokens):
    """In this process. Rows are gathered by numpy in one thread: torch would do it in a pool of threads of its own, which
    then spin against those of the training step (measured on 2 busy cores: ten times the CPU time)."""

    def __init__(self, reader: TokenReader, num_windows: int, device: torch.device) -> None:
        self._packed: dict[str, np.ndarray] = {}
        self._take = batch_memory(batch_shapes(reader, num_windows), device)
        super().__init__(reader)

    def close(self) -> None:
        self._packed = {}

    def _store(self, part: str, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._packed[part] = np.empty((self._zeros + 1, *row_shape), dtype)
        self._packed[part][-1] = 0

    def _put(self, part: str, first: int, rows: np.ndarray) -> None:
        self._packed[part][first : first + len(rows)] = rows

    def _gather(self, rows: np.ndarray) -> dict[str, Tensor]:
        arrays, tensors = self._take()
        for name, stream in self._reader.streams.items():
            out = arrays[name].reshape(-1, *stream.row_shape)
            if stream.dtype != "int8":
                np.take(self._packed[name], rows.ravel(), axis=0, out=out, mode="clip")  # other modes copy once more
                continue
            for number, row in enumerate(rows.ravel().tolist()):
                quantise.decode(stream, self._packed[name][row], self._packed[SCALE][row], out[number])
        return as_stored(self._reader, tensors)


class DeviceTokens(PackedTokens):
    """On the device: nothing is copied to it any more but row numbers and labels."""

    def __init__(self, reader: TokenReader, device: torch.device) -> None:
        self._packed: dict[str, Tensor] = {}
        self._device = device
        super().__init__(reader)

    def close(self) -> None:
        self._packed = {}

    def _store(self, part: str, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        kind = getattr(torch, {"uint16": "int16"}.get(dtype.name, dtype.name))  # few devices index uint16
        self._packed[part] = torch.empty((self._zeros + 1, *row_shape), dtype=kind, device=self._device)
        self._packed[part][-1] = 0

    def _put(self, part: str, first: int, rows: np.ndarray) -> None:
        signed = rows.view(np.int16) if rows.dtype == np.uint16 else rows
        self._packed[part][first : first + len(rows)].copy_(torch.from_numpy(signed))

    def _gather(self, rows: np.ndarray) -> dict[str, Tensor]:
        index, tensors = torch.from_numpy(rows.ravel()).to(self._device), {}
        for name, stream in self._reader.streams.items():
            values = self._packed[name].index_select(0, index)
            if stream.dtype == "int8":
                values = (values.float() * self._packed[SCALE].index_select(0, index)[..., None]).half()
            tensors[name] = values.view(*rows.shape, *stream.row_shape)
        return as_stored(self._reader, tensors)
