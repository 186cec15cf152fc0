"""The interface of token sources, where batches are made, and the plainest source: mapped files.

    TokenReader + WindowBatch ... -> TokenWindows ...

Packed rows: packed.py. Processes that read ahead: streamed.py. All give the same bytes for the same windows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qle.data.loading.buffers import Buffers
from qle.tasks.rows.batches.tokens import TokenReader
from qle.tasks.rows.batches.windows import WindowBatch

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
            for video, first in _video_rows(batches[number + 1]) if number + 1 < len(batches) else ():
                self._reader.prefetch(video, first)
            arrays, tensors = self._take()
            usable = np.stack(
                [
                    self._reader.read(video, first, {name: array[window] for name, array in arrays.items()})
                    for window, (video, first) in enumerate(_video_rows(batch))
                ]
            )
            del arrays  # a name that holds on to a buffer keeps it from going round
            yield TokenWindows(streams=as_stored(self._reader, tensors), usable=usable)
            del tensors

    def close(self) -> None:
        pass  # buffers go with the batches that look into them


def _video_rows(batch: WindowBatch) -> list[tuple[int, int]]:
    return list(zip(batch.video.tolist(), batch.first.tolist(), strict=True))
