"""Tokens of windows from where they lie: packed on the device or in RAM, or in mapped files. Streaming: data/streamed.py.

    TokenReader (or one packed array) + WindowBatch -> TokenWindows

All sources give the same bytes for the same windows. What is packed is packed as it is stored, int8 with its scales, and
multiplied out when a batch is gathered: with the same roundings as the reader.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qle.cache.quantise import SCALE
from qle.data.buffers import Buffers
from qle.data.tokens import TokenReader, has_nonfinite
from qle.data.windows import WindowBatch

PACK_ROWS = 256
"""Rows that are read at a time while packing."""

Shapes = Mapping[str, tuple[tuple[int, ...], np.dtype]]
Take = Callable[[], tuple[dict[str, np.ndarray], dict[str, Tensor]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWindows:
    """Tokens of one batch of windows."""

    streams: dict[str, Float[Tensor, "windows time *row"]]
    usable: np.ndarray
    """(windows, time) bool: valid and finite; all else is zeros."""


class TokenSource(ABC):
    """Gives the tokens of a sequence of batches, in order. One reading at a time."""

    @abstractmethod
    def read(self, batches: Sequence[WindowBatch]) -> Iterator[TokenWindows]:
        """One after another; whoever reads ahead does so from here."""

    @abstractmethod
    def close(self) -> None:
        """Give memory and processes back."""


def batch_shapes(reader: TokenReader, num_windows: int) -> Shapes:
    """Shape and numpy type of each stream of a batch."""
    return {
        name: ((num_windows, reader.window_rows, *stream.row_shape), reader.buffer_dtype(name))
        for name, stream in reader.streams.items()
    }


def batch_memory(shapes: Shapes, device: torch.device) -> Take:
    """Where batches are made: in memory that goes round, or, on the way to a CUDA device, in pinned memory, which torch
    itself lets go round once the copies out of it are done."""
    if device.type != "cuda":
        buffers = Buffers(shapes)

        def take() -> tuple[dict[str, np.ndarray], dict[str, Tensor]]:
            arrays = buffers.take()
            return arrays, {name: torch.from_numpy(array) for name, array in arrays.items()}

        return take

    def take_pinned() -> tuple[dict[str, np.ndarray], dict[str, Tensor]]:
        tensors = {
            name: torch.empty(shape, dtype=getattr(torch, dtype.name), pin_memory=True)
            for name, (shape, dtype) in shapes.items()
        }
        return {name: tensor.numpy() for name, tensor in tensors.items()}, tensors

    return take_pinned


def as_stored(reader: TokenReader, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bits of bfloat16 seen as bfloat16."""
    return {
        name: tensor.view(torch.bfloat16) if reader.streams[name].dtype == "bfloat16" else tensor
        for name, tensor in tensors.items()
    }


class MappedTokens(TokenSource):
    """Straight out of the files of the cache, as the kernel's page cache holds them."""

    def __init__(self, reader: TokenReader, num_windows: int, device: torch.device) -> None:
        self._reader = reader
        self._take = batch_memory(batch_shapes(reader, num_windows), device)

    def read(self, batches: Sequence[WindowBatch]) -> Iterator[TokenWindows]:
        for number, batch in enumerate(batches):
            for video, first in _places(batches[number + 1]) if number + 1 < len(batches) else ():
                self._reader.prefetch(video, first)
            arrays, tensors = self._take()
            usable = np.stack(
                [
                    self._reader.read(video, first, {name: array[place] for name, array in arrays.items()})
                    for place, (video, first) in enumerate(_places(batch))
                ]
            )
            del arrays  # a name that holds on to a buffer keeps it from going round
            yield TokenWindows(streams=as_stored(self._reader, tensors), usable=usable)
            del tensors

    def close(self) -> None:
        pass  # buffers go with the batches that look into them


class PackedTokens(TokenSource):
    """All chosen rows back to back in one array a stream, and behind them one row of zeros for whatever is not there."""

    def __init__(self, reader: TokenReader, num_windows: int, *, store: torch.device, device: torch.device) -> None:
        """store: where the packed rows lie. device: where batches go to."""
        self._reader, self._store = reader, store
        self._take = None if store.type != "cpu" else batch_memory(batch_shapes(reader, num_windows), device)
        self._begin = np.concatenate([[0], np.cumsum(reader.num_rows)])
        self._usable = np.concatenate([*reader.valid, [False]])
        self._packed: dict[str, dict[str, Tensor]] = {name: self._pack(name) for name in reader.streams}
        for video, (begin, end) in enumerate(zip(self._begin[:-1], self._begin[1:], strict=True)):
            if reader.valid[video].any() and not self._usable[begin:end].any():
                raise reader.no_usable_row(video)

    def read(self, batches: Sequence[WindowBatch]) -> Iterator[TokenWindows]:
        for batch in batches:
            rows = self._begin[batch.video + 1][:, None]
            number = self._begin[batch.video][:, None] + batch.first[:, None] + np.arange(self._reader.window_rows)
            number = np.where(number < rows, number, self._begin[-1])
            usable = self._usable[number]
            index = torch.from_numpy(np.where(usable, number, self._begin[-1]).ravel()).to(self._store)
            yield TokenWindows(streams=self._gather(index, len(batch)), usable=usable)

    def close(self) -> None:
        self._packed = {}

    def _gather(self, index: Tensor, num_windows: int) -> dict[str, Tensor]:
        tensors = self._take()[1] if self._take else {}
        for name, parts in self._packed.items():
            values, shape = parts[name], (num_windows, self._reader.window_rows, *parts[name].shape[1:])
            if SCALE in parts:
                scaled = values.index_select(0, index).float() * parts[SCALE].index_select(0, index)[..., None]
                values, index_of = scaled.half(), None
            else:
                index_of = index
            if self._take is None:
                tensors[name] = (values if index_of is None else values.index_select(0, index_of)).view(shape)
            elif index_of is None:
                tensors[name].copy_(values.view(shape))
            else:
                torch.index_select(values, 0, index_of, out=tensors[name].view(-1, *values.shape[1:]))
        return as_stored(self._reader, tensors)

    def _pack(self, name: str) -> dict[str, Tensor]:
        """Every stored array of a stream; rows that are not finite are struck from the usable ones."""
        packed = {}
        for part, stream in self._reader.stored_streams(name).items():
            dtype = getattr(torch, stream.stored_dtype.name)
            values = torch.empty((int(self._begin[-1]) + 1, *stream.row_shape), dtype=dtype, device=self._store)
            values[-1] = 0
            buffer = np.empty((PACK_ROWS, *stream.row_shape), stream.stored_dtype)
            for video, num_rows in enumerate(self._reader.num_rows):
                for first in range(0, num_rows, PACK_ROWS):
                    piece = buffer[: min(PACK_ROWS, num_rows - first)]
                    self._reader.read_raw(video, part, first, piece)
                    begin = int(self._begin[video]) + first
                    values[begin : begin + len(piece)].copy_(torch.from_numpy(piece))
                    if stream.dtype != "int8":
                        bad = [place for place, row in enumerate(piece) if has_nonfinite(row, stream.dtype)]
                        self._usable[begin + np.array(bad, dtype=np.int64)] = False
            packed[part] = values
        return packed


def _places(batch: WindowBatch) -> list[tuple[int, int]]:
    return list(zip(batch.video.tolist(), batch.first.tolist(), strict=True))
