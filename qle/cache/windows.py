"""Rows of committed videos -> numpy arrays, by one copy out of mapped files.

A mapping costs a file handle and kernel bookkeeping, and the first touch of its pages, so maps are kept: the least
recently used ones go when there are too many. Reading from several threads is fine; a forked child starts with maps of
its own. A file that shrinks while it is mapped kills any process that reads there, which is why nothing in a cache is
ever written in place: files are replaced by renames, and a map keeps the old one alive.
"""

import mmap
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from qle.cache.files import hdf5_store, quantise, zarr_store
from qle.cache.files.extents import Extent, extents
from qle.cache.files.quantise import SCALE
from qle.cache.records import CommitRecord
from qle.errors import CacheCorruptError, CacheError, CacheMismatchError
from qle.types import Stream

MAX_MAPS = 4096
"""Far below vm.max_map_count (65530); the limit on open files usually binds earlier."""


def max_maps() -> int:
    """How many files may be mapped at a time: half of the handles that this process may have."""
    try:
        import resource
    except ImportError:  # Windows
        return 256
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_MAPS if soft < 0 else max(16, min(MAX_MAPS, soft // 2))


class MapPool:
    """Read-only maps of whole files as arrays of bytes, least recently used first out."""

    def __init__(self, capacity: int | None = None) -> None:
        self._capacity = capacity or max_maps()
        self._reset()

    def __reduce__(self) -> tuple[type["MapPool"], tuple[int]]:
        return MapPool, (self._capacity,)

    def __len__(self) -> int:
        return len(self._maps)

    def clear(self) -> None:
        """Forget all maps; arrays that look into them stay good."""
        if self._pid == os.getpid():
            with self._lock:
                self._maps.clear()

    def get(self, path: str, folder: int, open_map: Callable[[str], np.ndarray]) -> np.ndarray:
        """The bytes of a file; `open_map` makes and checks them when they are not there yet.

        folder: inode of the video's folder, so that a map of a version that was replaced is not taken for the new one.
        """
        if self._pid != os.getpid():  # a lock that another thread held during a fork would never be freed
            self._reset()
        with self._lock:
            known = self._maps.get((path, folder))
            if known is not None:
                self._maps.move_to_end((path, folder))
                return known
            while len(self._maps) >= self._capacity:
                self._maps.popitem(last=False)  # unmapped once the last array that looks into it is gone
            opened = self._maps[path, folder] = open_map(path)
            return opened

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._maps: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()


class VideoFolder(NamedTuple):
    """A folder of files as it was when its record was read. Replacing a video makes another folder of the same name."""

    path: Path
    inode: int

    @classmethod
    def at(cls, path: Path) -> Self:
        return cls(path, os.stat(path).st_ino)

    @property
    def is_there(self) -> bool:
        """Whether the folder of this name is still the same one."""
        try:
            return os.stat(self.path).st_ino == self.inode
        except FileNotFoundError:
            return False

    def check(self) -> None:
        """Raise unless a file that was just opened by its name was one of this folder."""
        if not self.is_there:
            raise CacheMismatchError(f"{self.path} was replaced or removed after it was opened; open the cache again")


class StoredRows:
    """The rows of one stream of one video: as numbers, or as they are stored."""

    def __init__(self, folder: VideoFolder, record: CommitRecord, name: str, pool: MapPool) -> None:
        stream_record = record.stream(name)
        self.stream: Stream = stream_record.stream
        self.shape: tuple[int, ...] = stream_record.shape
        self.dtype = quantise.decoded_dtype(self.stream)
        """Type of the numbers that `read` gives."""
        self._raw, self._key = stream_record.raw, record.key
        self._folder, self._pool = folder, pool
        self._sizes = {os.path.join(folder.path, file.path): file.size for file in record.files}
        self._row_bytes = self.stream.row_bytes
        self._is_plain = self.stream.dtype not in ("bfloat16", "int8")
        self._library = zarr_store if record.store == "zarr" else hdf5_store
        self._is_length_known = False
        self._scale = StoredRows(folder, record, SCALE, pool) if self.stream.dtype == "int8" else None

    def read(self, start: int, stop: int, out: np.ndarray | None = None, *, raw: bool = False) -> np.ndarray:
        """Rows start..stop-1 in a new array or in `out`. raw: as stored, bfloat16 as uint16 and int8 unscaled."""
        if not 0 <= start <= stop <= self.shape[0]:
            raise CacheError(
                f"rows {start}..{stop} of {self.stream.name!r} of video {self._key!r}: "
                f"expected 0 <= start <= stop <= {self.shape[0]}"
            )
        if self._raw is None:
            self._check_length()
        shape = (stop - start, *self.shape[1:])
        if out is None:
            out = np.empty(shape, self.stream.stored_dtype if raw else self.dtype)
        elif out.shape != shape:
            raise CacheError(f"buffer for {self.stream.name!r} has shape {out.shape}, expected {shape}")
        scale = None if raw or self._scale is None else self._scale.read(start, stop)
        for first, part in self._stored(start, stop):
            rows = slice(first - start, first - start + len(part))
            if raw or self._is_plain:
                np.copyto(out[rows], part, casting="same_kind")
            else:
                quantise.decode(self.stream, part, None if scale is None else scale[rows], out[rows])
        return out

    def prefetch(self, start: int, stop: int) -> None:
        """Ask the kernel to read rows before they are used: nearly twice the speed on a cold disk."""
        if self._raw is None or not hasattr(mmap, "MADV_WILLNEED"):
            return
        for extent in extents(self._raw, self._row_bytes, start, stop):
            mapped = self._map(extent)
            first = extent.offset - extent.offset % mmap.PAGESIZE
            length = extent.offset + extent.num_rows * self._row_bytes - first
            assert isinstance(mapped.base, memoryview)  # as np.frombuffer leaves it
            assert isinstance(mapped.base.obj, mmap.mmap)
            mapped.base.obj.madvise(mmap.MADV_WILLNEED, first, length)

    def _stored(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """Stored values in pieces that lie in one file each, with the row where each begins."""
        if self._raw is None:
            yield start, self._library.read_rows(self._folder.path, self.stream.name, start, stop)
            return
        for extent in extents(self._raw, self._row_bytes, start, stop):
            size = extent.num_rows * self._row_bytes
            content = self._map(extent)[extent.offset : extent.offset + size]
            yield extent.first_row, content.view(self.stream.stored_dtype).reshape(extent.num_rows, *self.shape[1:])

    def _check_length(self) -> None:
        """An array that only its library can read says itself how long it is, before memory is reserved for its rows."""
        if self._is_length_known:
            return
        shape = self._library.array_shape(self._folder.path, self.stream.name)
        if shape != self.shape:
            raise CacheCorruptError(
                f"{self._folder.path}: stream {self.stream.name!r} is {shape}, expected {self.shape}; run: qle cache verify"
            )
        self._is_length_known = True

    def _map(self, extent: Extent) -> np.ndarray:
        return self._pool.get(os.path.join(self._folder.path, extent.path), self._folder.inode, self._open_map)

    def _open_map(self, path: str) -> np.ndarray:
        """Map a file of the size that the record says, and make sure that a shard's rows lie as we take them to lie."""
        try:
            content = np.frombuffer(_map_file(path, self._sizes[path]), np.uint8)
        except CacheCorruptError:
            self._folder.check()  # then it is not damaged but gone
            raise
        self._folder.check()
        if self._raw is not None and self._raw.rows_per_chunk:
            index = zarr_store.expected_index(len(content), self.stream, self._raw)
            if content[-len(index) :].tobytes() != index:
                raise CacheCorruptError(
                    f"{path}: the shard's index is not that of plain rows in order; run: qle cache verify"
                )
        return content


def _map_file(path: str, expected_size: int) -> mmap.mmap:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        raise CacheCorruptError(f"{path} is missing; run: qle cache verify") from None
    try:
        size = os.fstat(fd).st_size
        if size != expected_size:
            raise CacheCorruptError(f"{path} has {size} bytes, expected {expected_size}; run: qle cache verify")
        if sys.version_info >= (3, 13):  # no file handle is kept for the map
            return mmap.mmap(fd, size, access=mmap.ACCESS_READ, trackfd=False)
        return mmap.mmap(fd, size, access=mmap.ACCESS_READ)
    finally:
        os.close(fd)
