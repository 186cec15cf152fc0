"""The frames of every video of a space in one mapped array, as they lie on the disk. No torch.

    <space>/pooled-<stream>-<frames>/
        pooled.json             PooledRecord: what the numbers are of, which files count and how far; replaced as a whole
        vectors-<id>.f16        (rows, frames, dim) float16, as data/retrieval/frames.py gives them
        means-<id>.f16          (rows, dim) float16: their mean
        table-<id>.npz          key, commit, row and digest of each video, sorted by key
        coarse-*                vectors of one retriever (coarse.py)

A cache of what the committed videos say: it may be deleted at any time. Rows are only ever appended, behind what the record
knows of, and appear when the record is replaced; a kill in between leaves bytes that nobody reads. Records end with a digest
of themselves; sizes are looked at when the files are opened, digests when rows are read, so a torn or flipped file is built
anew and never believed. Opening costs the same few milliseconds for any number of videos but for the table, 60 bytes a video.
"""

import io
import os
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import xxhash
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from qle.cache.handles import folder_handle, open_file, remove
from qle.durable import fits_digest, replace_file
from qle.errors import CacheCorruptError
from qle.inputs import MOST_TEXT_BYTES, read_record_bytes
from qle.tasks.retrieval.batches.frames import FrameSource

FORMAT = 1
RECORD_FILE = "pooled.json"
LOCK_FILE = ".lock"
FLOAT16 = np.dtype("<f2")
DIGEST_ROWS = 4096
"""Most rows of one digest that grew out of several appends."""
OPEN_TRIES = 5
"""Whoever compacts the index takes files away between the record and their opening."""


class CannotWriteError(OSError):
    """The index cannot be kept where it belongs."""


class DamagedIndexError(Exception):
    """Bytes of the index are not those that were written. Nobody's loss: it is built anew."""


class PooledRecord(BaseModel):
    """pooled.json"""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = FORMAT
    space: str
    """Hash of the space."""
    stream: str
    num_frames: int
    dim: int
    num_rows: int
    """Rows in the files, those of removed videos included."""
    vectors: str
    means: str
    table: str
    table_digest: str
    mean_digests: tuple[tuple[int, int, str], ...] = ()
    """(first row, row behind the last, xxh3-128) of all rows, part by part."""
    folders: dict[str, int] = {}
    """mtimes of the folders of commits (cache/index.py): while they stay, nothing has to be listed."""
    failures: dict[str, str] = {}
    """Videos that could not be read, and why; tried again each time."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The videos, sorted by key."""

    names: np.ndarray
    """uint8: all keys end to end, UTF-8."""
    ends: np.ndarray
    """(videos,) int64: where each key ends."""
    commit: np.ndarray
    """(videos,) int64: when the video was committed, in microseconds: which of its versions this is."""
    row: np.ndarray
    """(videos,) int64: where its frames stand."""
    digest: np.ndarray
    """(videos,) uint64: xxh3-64 of its frames."""

    @classmethod
    def of(cls, keys: Sequence[str], commit: np.ndarray, row: np.ndarray, digest: np.ndarray) -> "Table":
        """In any order."""
        order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
        names = [keys[number].encode("utf-8", "surrogatepass") for number in order.tolist()]
        return cls(
            names=np.frombuffer(b"".join(names), dtype=np.uint8),
            ends=np.cumsum([len(name) for name in names], dtype=np.int64),
            commit=np.asarray(commit, np.int64)[order],
            row=np.asarray(row, np.int64)[order],
            digest=np.asarray(digest, np.uint64)[order],
        )

    def __len__(self) -> int:
        return len(self.ends)

    def key(self, number: int) -> str:
        start = int(self.ends[number - 1]) if number else 0
        return self.names[start : int(self.ends[number])].tobytes().decode("utf-8", "surrogatepass")

    def keys(self) -> list[str]:
        """All of them."""
        text, ends = self.names.tobytes(), [0, *self.ends.tolist()]
        return [text[start:end].decode("utf-8", "surrogatepass") for start, end in pairwise(ends)]

    def to_bytes(self) -> bytes:
        sink = io.BytesIO()
        np.savez(sink, names=self.names, ends=self.ends, commit=self.commit, row=self.row, digest=self.digest)
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Table":
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return cls(**{name: file[name] for name in ("names", "ends", "commit", "row", "digest")})


class PooledIndex:
    """An opened index. Places are numbers in the sorted list of keys, rows are numbers in the files."""

    def __init__(
        self, folder: Path, record: PooledRecord, table: Table, frames: FrameSource, *, is_kept: bool = True
    ) -> None:
        self.folder, self.record, self.table, self.frames_of, self.is_kept = folder, record, table, frames, is_kept
        if len(table) and not 0 <= int(table.row.min()) <= int(table.row.max()) < record.num_rows:
            raise DamagedIndexError(f"{folder / record.table}: names rows that are not there")
        shape = (record.num_rows, record.num_frames, record.dim)
        self._vectors = mapped(folder / record.vectors, shape)
        self._means = mapped(folder / record.means, (shape[0], shape[2]))
        self.damaged: dict[str, str] = {}
        """Videos whose frames in the index were not what was written; they were read from the cache instead."""

    def __len__(self) -> int:
        return len(self.table)

    @property
    def space(self) -> Path:
        return self.frames_of.space.path

    @property
    def num_rows(self) -> int:
        return self.record.num_rows

    @cached_property
    def number_of_key(self) -> Mapping[str, int]:
        return {key: number for number, key in enumerate(self.table.keys())}

    def key(self, number: int) -> str:
        return self.table.key(number)

    def frames(self, numbers: np.ndarray) -> np.ndarray:
        """(videos, frames, dim) float32 of these videos, in their order."""
        rows = self.table.row[numbers]
        order = np.argsort(rows)  # in the order of the file, as a disk likes it
        frames = np.empty((len(numbers), self.record.num_frames, self.record.dim), dtype=np.float32)
        for at in order.tolist():
            stored = np.asarray(self._vectors[rows[at]])
            if short_digest(stored) != int(self.table.digest[numbers[at]]):
                frames[at] = self._again(int(numbers[at]))
            else:
                frames[at] = stored
        return frames

    def means(self, first: int, stop: int) -> np.ndarray:
        """(rows, dim) float16. DamagedIndexError where they are not what was written."""
        for start, end, digest in self.record.mean_digests:
            if start < stop and end > first and digest_of(self._means[start:end]) != digest:
                raise DamagedIndexError(f"{self.folder / self.record.means}: rows {start} to {end}")
        return np.asarray(self._means[first:stop])

    def _again(self, number: int) -> np.ndarray:
        """Out of the cache; and the index is built anew the next time."""
        key = self.key(number)
        self.damaged[key] = f"its frames in {self.folder.name} are damaged: read from the video again"
        if self.is_kept:
            remove(self.folder.parent, self.folder / RECORD_FILE)
        again: np.ndarray = to_float16(self.frames_of.frames([key]))[0].astype(np.float32)
        return again


def to_float16(frames: np.ndarray) -> np.ndarray:
    """What float16 cannot hold is cut at its largest number."""
    limit = float(np.finfo(np.float16).max)
    rounded: np.ndarray = np.clip(frames, -limit, limit).astype(FLOAT16)
    return rounded


def digest_of(values: np.ndarray) -> str:
    """xxh3-128 of the bytes."""
    return str(xxhash.xxh3_128_hexdigest(np.ascontiguousarray(values).data))


def short_digest(values: np.ndarray) -> int:
    """xxh3-64 of the bytes: enough for the frames of one video."""
    return int(xxhash.xxh3_64_intdigest(np.ascontiguousarray(values).data))


def append_rows(path: Path, rows: np.ndarray, first: int) -> None:
    """Behind row `first`, over whatever a writer that was killed has left there."""
    content = np.ascontiguousarray(rows)
    row_bytes = content.nbytes // max(1, len(content))
    try:
        with open(open_file(path.parent.parent, path, os.O_RDWR | os.O_CREAT), "r+b") as file:
            file.seek(first * row_bytes)
            file.write(content.data.cast("B"))
    except OSError as error:
        raise CannotWriteError(*error.args) from error


def write_record(folder: Path, name: str, content: bytes) -> None:
    """A file of the index as a whole; a link in its place is replaced and never followed."""
    with folder_handle(folder.parent, folder) as handle:
        replace_file(folder / name, content, dir_fd=handle)


def read_record(folder: Path, name: str) -> bytes | None:
    """The text of a record of the index; None where there is none, or one that is not as it was written."""
    try:
        content = read_record_bytes(folder / name, follow_links=False)
    except OSError:
        return None
    return content if fits_digest(content) else None


def with_rows(
    digests: Sequence[tuple[int, int, str]], path: Path, rows: np.ndarray, first: int
) -> list[tuple[int, int, str]]:
    """Digests of a file of vectors after `rows` were written behind row `first`. Small neighbours become one, so that many
    small appends leave few; not where the older bytes are no longer what they were."""
    stop = first + len(rows)
    if digests and digests[-1][1] == first and stop - digests[-1][0] <= DIGEST_ROWS:
        start, _, digest = digests[-1]
        before = mapped(path, (stop, *rows.shape[1:]))[start:first]
        if digest_of(before) == digest:
            return [*digests[:-1], (start, stop, digest_of(np.concatenate([before, rows])))]
    return [*digests, (first, stop, digest_of(rows))]


def folder_of(frames: FrameSource) -> Path:
    return frames.space.path / f"pooled-{frames.stream}-{frames.num_frames}"


def write_lock(folder: Path) -> FileLock:
    """One writer at a time; readers need no lock."""
    return FileLock(folder / LOCK_FILE)


def read_index(folder: Path, frames: FrameSource, *, is_kept: bool = True) -> PooledIndex | None:
    """The index as it was left; None where there is none, or none that can be believed."""
    for _ in range(OPEN_TRIES):
        record = _read_record(folder, frames)
        if record is None:
            return None
        try:
            content = read_record_bytes(folder / record.table, MOST_TEXT_BYTES, follow_links=False)
            if xxhash.xxh3_128_hexdigest(content) != record.table_digest:
                return None
            return PooledIndex(folder, record, Table.from_bytes(content), frames, is_kept=is_kept)
        except FileNotFoundError:
            continue
        except (DamagedIndexError, OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None
    return None


def mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """float16 rows of a file, read when they are touched. DamagedIndexError where the file is short, or a link or pipe."""
    size = int(np.prod(shape, dtype=np.int64)) * FLOAT16.itemsize
    if not size:
        return np.empty(shape, FLOAT16)
    try:
        handle = open_file(path.parent.parent, path, os.O_RDONLY | os.O_NONBLOCK)
    except CacheCorruptError as error:
        raise DamagedIndexError(str(error)) from error
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size < size:
            raise DamagedIndexError(f"{path} has {status.st_size} bytes, expected {size}")
        # Copy on write: nobody writes, but torch does not take arrays that nobody may write to.
        return np.memmap(file, dtype=FLOAT16, mode="c", shape=shape)


def _read_record(folder: Path, frames: FrameSource) -> PooledRecord | None:
    content = read_record(folder, RECORD_FILE)
    if content is None:
        return None
    try:
        record = PooledRecord.model_validate_json(content)
    except ValidationError:
        return None
    is_ours = (record.format, record.space, record.stream, record.num_frames, record.dim) == (
        FORMAT, frames.space.record.hash, frames.stream, frames.num_frames, frames.dim,
    )  # fmt: skip
    names = (record.vectors, record.means, record.table)  # a stranger's cache must not lead out of it
    return record if is_ours and all(Path(name).name == name for name in names) else None
