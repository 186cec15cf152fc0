"""Clips of all videos packed back to back before the first step, and batches gathered out of them by their rows.

    ClipReader, every video once -> one array of rows -> (video, first clip, clips) ... -> (items, length, dim)

Features are normalised and joined while they are packed, never again: a batch is one copy of consecutive rows an item, into
memory that goes round, by one thread and without worker processes. Where the pack does not fit into memory it lies in a
nameless temporary file, which the system gives back whatever happens, or nothing is packed and every window is read when it
is needed. All give the same numbers.
"""

import shutil
import tempfile
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qle.data.loading.buffers import Buffers
from qle.data.loading.plan import Placement, PlacementName, available_ram_bytes, choose_placement
from qle.data.streams.recipe import NUM_ENDPOINTS
from qle.errors import ConfigError
from qle.runtime import num_tenants
from qle.tasks.moments.batches.reading import ClipReader
from qle.tasks.moments.batches.targets import ItemWindows

CHUNK_ROWS = 4096
"""Clips of a video that are read at a time while packing."""
ADVICE = "use data.placement=auto, fewer streams, or a longer data.clip_s"


class ClipSource(ABC):
    """Gives the clips of windows."""

    @abstractmethod
    def gather(self, videos: np.ndarray, windows: ItemWindows, length: int) -> tuple[Tensor, np.ndarray]:
        """(items, length, dim) features with endpoints, and (items, length) bool of the clips that may be used; all else is
        zeros. The tensor's memory is used again once nothing looks into it any more."""

    @abstractmethod
    def close(self) -> None:
        """Give the memory back."""


def open_source(placement: Placement, reader: ClipReader, device: torch.device) -> ClipSource:
    """The clips in the placement that `pack_placement` chose."""
    if placement.name == "streamed":
        return StreamedClips(reader, device)
    if placement.name == "device":
        return DeviceClips(reader, device)
    if placement.name == "ram":
        return HostClips(reader, device, np.empty((int(reader.num_clips.sum()), reader.dim), reader.dtype))
    return HostClips(reader, device, temporary_rows(int(reader.num_clips.sum()), reader.dim, reader.dtype))


def pack_placement(
    wanted: PlacementName, size_bytes: int, device: torch.device, num_processes: int, *, ram_bytes: int | None = None
) -> Placement:
    """Where the pack lies. ConfigError where it is wanted in a place that cannot hold it."""
    chosen = choose_placement(
        wanted,
        size_bytes,
        ram_bytes=available_ram_bytes(num_tenants()) if ram_bytes is None else ram_bytes,
        device_bytes=torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None,
        num_processes=num_processes,
        advice=ADVICE,
    )
    if chosen.name != "mapped":
        return chosen
    folder = Path(tempfile.gettempdir())
    free_bytes, needed_bytes = shutil.disk_usage(folder).free, size_bytes * num_processes
    where = f"{size_bytes / 1e9:.2f} GB packed in a temporary file in {folder}"
    if needed_bytes <= free_bytes:
        return replace(chosen, reason=f"{where}, which has {free_bytes / 1e9:.1f} GB of room")
    if wanted == "mapped":
        raise ConfigError(
            f"data.placement = 'mapped': {where} in each of {num_processes} processes; it has {free_bytes / 1e9:.2f} GB "
            f"of room\nset TMPDIR to a folder with more, or data.placement=streamed"
        )
    reason = f"{size_bytes / 1e9:.2f} GB fit neither into memory nor into {folder} ({free_bytes / 1e9:.1f} GB of room)"
    return replace(chosen, name="streamed", reason=reason)


def temporary_rows(num_rows: int, dim: int, dtype: np.dtype) -> np.ndarray:
    """Rows in a mapped file without a name: nothing is left of it when the process ends, however it ends."""
    with tempfile.TemporaryFile(prefix="qle-pack-") as file:
        file.truncate(max(1, num_rows * dim * dtype.itemsize))
        return np.memmap(file, dtype=dtype, mode="r+", shape=(num_rows, dim)).view(np.ndarray)  # its slices are cheaper


class BatchMemory:
    """Where batches are made: on the way to a CUDA device in pinned memory, else in memory that goes round, since fresh pages
    cost as much as filling them. Batches differ in shape, so buffers are flat and as long as the longest batch so far."""

    def __init__(self, dtype: np.dtype, device: torch.device) -> None:
        self._dtype, self._is_pinned = dtype, device.type == "cuda"
        self._size = 0
        self._buffers: Buffers | None = None

    def take(self, shape: tuple[int, ...]) -> tuple[Tensor, np.ndarray]:
        """The same memory as a tensor and as an array."""
        if self._is_pinned:
            pinned = torch.empty(shape, dtype=getattr(torch, self._dtype.name), pin_memory=True)
            return pinned, pinned.numpy()
        size = int(np.prod(shape))
        if self._buffers is None or size > self._size:
            self._size = size
            self._buffers = Buffers({"rows": ((size,), self._dtype)})
        tensor = torch.from_numpy(self._buffers.take()["rows"])[:size].view(shape)
        return tensor, tensor.numpy()


class HostClips(ClipSource):
    """Packed in memory of this process, or in a mapped file."""

    def __init__(self, reader: ClipReader, device: torch.device, rows: np.ndarray) -> None:
        self._rows, self._columns, self._is_long = rows, reader.endpoint_columns, reader.is_long
        self._memory = BatchMemory(reader.dtype, device)
        self._begin = begins(reader)
        self._valid = np.zeros(len(rows), dtype=bool)
        for row, video, first, stop in pieces(reader):
            self._valid[row : row + stop - first] = read_into(
                torch.from_numpy(rows[row : row + stop - first]), reader, video, first
            )

    def gather(self, videos: np.ndarray, windows: ItemWindows, length: int) -> tuple[Tensor, np.ndarray]:
        tensor, out = self._memory.take((len(videos), length, self._rows.shape[1]))
        row = self._begin[videos] + windows.first
        for item, (begin, count) in enumerate(zip(row.tolist(), windows.count.tolist(), strict=True)):
            out[item, :count] = self._rows[begin : begin + count]
            out[item, count:] = 0
        mask = valid_clips(self._valid, row, windows.count, length)
        add_endpoints(out, mask, windows.count, self._columns, self._is_long[videos])
        return tensor, mask

    def close(self) -> None:
        self._rows = np.zeros((0, self._rows.shape[1]), self._rows.dtype)


class DeviceClips(ClipSource):
    """On the device: nothing is copied to it any more but row numbers and labels."""

    def __init__(self, reader: ClipReader, device: torch.device) -> None:
        self._begin, self._columns, self._device = begins(reader), reader.endpoint_columns, device
        self._is_long = reader.is_long
        self._zeros = int(self._begin[-1])
        kind = getattr(torch, reader.dtype.name)
        self._rows = torch.zeros((self._zeros + 1, reader.dim), dtype=kind, device=device)
        self._valid = np.zeros(self._zeros, dtype=bool)
        for row, video, first, stop in pieces(reader):
            self._valid[row : row + stop - first] = read_into(
                self._rows[row : row + stop - first], reader, video, first
            )

    def gather(self, videos: np.ndarray, windows: ItemWindows, length: int) -> tuple[Tensor, np.ndarray]:
        row = self._begin[videos] + windows.first
        mask = valid_clips(self._valid, row, windows.count, length)
        index = np.where(mask, row[:, None] + np.arange(length), self._zeros)
        clips = self._rows.index_select(0, torch.from_numpy(index.ravel()).to(self._device, non_blocking=True))
        clips = clips.view(*index.shape, -1)
        long = self._is_long[videos]
        if self._columns and long.any():
            ends = torch.from_numpy(endpoint_values(mask[long], windows.count[long])).to(self._device, clips.dtype)
            # Numbers, not a mask: how many are True would have to be asked for, and the device would be waited for.
            where = torch.from_numpy(np.flatnonzero(long)).to(self._device, non_blocking=True)
            for column in self._columns:
                clips[where, :, column : column + NUM_ENDPOINTS] = ends
        return clips, mask

    def close(self) -> None:
        self._rows = self._rows.new_zeros(0)


class StreamedClips(ClipSource):
    """Nothing is packed: windows are read, normalised and joined when they are needed, each once a batch."""

    def __init__(self, reader: ClipReader, device: torch.device) -> None:
        self._reader, self._memory = reader, BatchMemory(reader.dtype, device)
        self._is_long = reader.is_long

    def gather(self, videos: np.ndarray, windows: ItemWindows, length: int) -> tuple[Tensor, np.ndarray]:
        tensor, out = self._memory.take((len(videos), length, self._reader.dim))
        mask = np.zeros((len(videos), length), dtype=bool)
        done: dict[tuple[int, int], int] = {}
        for item, (video, first, count) in enumerate(
            zip(videos.tolist(), windows.first.tolist(), windows.count.tolist(), strict=True)
        ):
            known = done.setdefault((video, first), item)
            if known == item:
                mask[item, :count] = read_into(tensor[item, :count], self._reader, video, first)
                out[item, count:] = 0
            else:
                out[item], mask[item] = out[known], mask[known]
        add_endpoints(out, mask, windows.count, self._reader.endpoint_columns, self._is_long[videos])
        return tensor, mask

    def close(self) -> None:
        pass


def read_into(out: Tensor, reader: ClipReader, video: int, first: int) -> np.ndarray:
    """As many clips as `out` has room for, in its type; (clips,) bool of those that may be used. (Rounding is torch's
    business: numpy takes thirty times as long to make float16.)"""
    features, valid = reader.read(video, first, first + len(out))
    out.copy_(torch.from_numpy(features))
    return valid


def begins(reader: ClipReader) -> np.ndarray:
    """(videos + 1,) int64: row of the first clip of each video."""
    return np.concatenate([[0], np.cumsum(reader.num_clips)]).astype(np.int64)


def pieces(reader: ClipReader) -> list[tuple[int, int, int, int]]:
    """(row in the pack, video, first clip, the one behind the last): what is read at a time. From the last video on, since
    those are still open: their times were asked for just before."""
    return [
        (row + first, video, first, min(first + CHUNK_ROWS, count))
        for video, (row, count) in enumerate(zip(begins(reader).tolist(), reader.num_clips.tolist(), strict=False))
        for first in range(0, count, CHUNK_ROWS)
    ][::-1]


def valid_clips(valid: np.ndarray, row: np.ndarray, count: np.ndarray, length: int) -> np.ndarray:
    """(items, length) bool: of the rows from `row` on, as far as `count`."""
    clip = np.arange(length)
    inside = np.asarray(clip < count[:, None])
    if not valid.all():
        inside &= valid[np.minimum(row[:, None] + clip, len(valid) - 1)]
    return inside


def endpoint_values(mask: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(items, length, 2) float32: begin and end of each clip as parts of its window; zeros outside the mask."""
    clip = np.arange(mask.shape[1], dtype=np.float32)
    clips = count[:, None].astype(np.float32)
    ends = np.stack([clip / clips, (clip + 1) / clips], axis=2) * mask[:, :, None]
    return np.asarray(ends, dtype=np.float32)


def add_endpoints(
    out: np.ndarray, mask: np.ndarray, count: np.ndarray, columns: tuple[int, ...], is_long: np.ndarray
) -> None:
    """Into the columns that are theirs, where the window is a part of a longer video."""
    if columns and is_long.any():
        ends = endpoint_values(mask[is_long], count[is_long])
        for column in columns:
            out[is_long, :, column : column + NUM_ENDPOINTS] = ends
