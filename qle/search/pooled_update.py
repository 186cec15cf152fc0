"""Makes the pooled index of a space, and brings it up to date: only videos that came since are read.

    commit folders as they were? -> the index as it is
    else the list of committed videos - the table = to read; the table - the list = removed or replaced

Videos are appended in groups, and after each group the record is replaced: a kill costs one group. One process writes at a
time (a lock), the others wait and then find it done. Where the cache cannot be written, the same files are made in a temporary
folder, that goes when the process ends.
"""

import os
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from qle.cache.handles import make_folder, remove
from qle.cache.index import Index, commit_folders, load_index, settled
from qle.cache.spaces import open_space
from qle.durable import sync_file, with_digest
from qle.errors import QleError
from qle.search.pooled import (
    RECORD_FILE,
    CannotWriteError,
    PooledIndex,
    PooledRecord,
    Table,
    append_rows,
    folder_of,
    read_index,
    short_digest,
    to_float16,
    with_rows,
    write_lock,
    write_record,
)
from qle.tasks.retrieval.batches.frames import FrameSource
from qle.types import OnProgress

VIDEOS_PER_READ = 256
VIDEOS_PER_COMMIT = 4096
COMPACT_ROWS = 1024
"""Rows of removed videos up to this number are left where they are, however few videos there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedIndex:
    """The index of what the space holds now, and what the user should know."""

    index: PooledIndex
    notes: tuple[str, ...] = ()
    temporary: "_TemporaryFolder | None" = None
    """Folder of an index that could not be kept; it goes with this."""


class _TemporaryFolder:
    """Deleted when nobody holds it any more; what is mapped goes on."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="qle-pooled-"))
        weakref.finalize(self, shutil.rmtree, self.path, True)


def open_pooled(frames: FrameSource, on_progress: OnProgress | None = None) -> OpenedIndex:
    """`frames` says which space, stream and number of frames; with `keep_bytes=0` it keeps nothing in memory."""
    folder = folder_of(frames)
    index = read_index(folder, frames)
    if index is not None and not index.record.failures and index.record.folders == commit_folders(frames.space.path):
        return OpenedIndex(index=index)
    try:
        return OpenedIndex(index=_update(folder, frames, on_progress))
    except CannotWriteError as error:
        if index is not None and not _Wanted.of(frames).news(index):
            return OpenedIndex(index=index)
        temporary = _TemporaryFolder()
        if index is not None:
            shutil.copytree(folder, temporary.path, ignore=_links, dirs_exist_ok=True)
        made = _update(temporary.path, frames, on_progress, is_kept=False)
        note = (
            f"{folder} cannot be written ({error.strerror or error}): made in a temporary folder, for this command only"
        )
        return OpenedIndex(index=made, notes=(note,), temporary=temporary)


def _links(folder: str, names: list[str]) -> list[str]:
    """Names of links in a folder: they are not copied, and neither is what they lead to."""
    return [name for name in names if os.path.islink(os.path.join(folder, name))]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What the space holds."""

    commit: Mapping[str, int]
    """By key."""
    unusable: Mapping[str, str]
    """Videos whose record cannot be used, and why."""
    folders: Mapping[str, int]

    @classmethod
    def of(cls, frames: FrameSource) -> "_Wanted":
        path = frames.space.path
        folders = settled(path, commit_folders(path))  # before anything is listed
        index = load_index(open_space(path))
        created = np.asarray(index.table["created"].cast(pa.int64()))
        problems = index.texts("problem")
        rows = index.row_of_key
        return cls(
            commit={key: int(created[row]) for key, row in rows.items() if not problems[row]},
            unusable={_name(index, key, row): problems[row] for key, row in rows.items() if problems[row]},
            folders=folders,
        )

    def news(self, index: PooledIndex) -> bool:
        """Whether the index holds anything else than it should."""
        return dict(zip(index.table.keys(), index.table.commit.tolist(), strict=True)) != self.commit


def _name(index: Index, key: str, row: int) -> str:
    return key or str(index.folder(row))


def _update(folder: Path, frames: FrameSource, on_progress: OnProgress | None, *, is_kept: bool = True) -> PooledIndex:
    try:
        make_folder(folder.parent, folder)
        lock = write_lock(folder)
        lock.acquire()
    except OSError as error:
        raise CannotWriteError(*error.args) from error
    try:
        wanted = _Wanted.of(frames)  # by now: another may have written while we waited
        writer = IndexWriter(folder, frames, read_index(folder, frames, is_kept=is_kept))
        writer.keep(wanted.commit)
        writer.read(wanted, on_progress)
        return writer.finish(wanted, is_kept=is_kept)
    finally:
        lock.release()


class IndexWriter:
    """Appends to an index, or begins one."""

    def __init__(self, folder: Path, frames: FrameSource, index: PooledIndex | None) -> None:
        self._folder, self._frames, self._old = folder, frames, index
        self._of: dict[str, tuple[int, int, int]] = {}
        """Key -> commit, row, digest."""
        self._failures: dict[str, str] = {}
        self._written: PooledRecord | None = None if index is None else index.record
        if index is None:
            name = secrets.token_hex(4)
            self._vectors, self._means = f"vectors-{name}.f16", f"means-{name}.f16"
            self._num_rows = 0
            self._digests: list[tuple[int, int, str]] = []
        else:
            record = index.record
            self._vectors, self._means = record.vectors, record.means
            self._num_rows, self._digests = record.num_rows, list(record.mean_digests)

    def keep(self, commit: Mapping[str, int]) -> None:
        """Videos of the index that are there as they were; moved together where most rows are of others."""
        if self._old is None:
            return
        table = self._old.table
        entries = zip(table.commit.tolist(), table.row.tolist(), table.digest.tolist(), strict=True)
        self._of = {key: entry for key, entry in zip(table.keys(), entries, strict=True) if commit.get(key) == entry[0]}
        if self._num_rows - len(self._of) > max(COMPACT_ROWS, len(self._of)):
            self._compact(self._old)

    def read(self, wanted: _Wanted, on_progress: OnProgress | None) -> None:
        """Everything that is not there yet."""
        todo = [key for key in sorted(wanted.commit) if key not in self._of]
        since = 0
        for first in range(0, len(todo), VIDEOS_PER_READ):
            part = todo[first : first + VIDEOS_PER_READ]
            read = [(key, values) for key in part if (values := self._read(key)) is not None]
            if read:
                self.append([key for key, _ in read], np.stack([values for _, values in read]), wanted.commit)
            since += len(part)
            if since >= VIDEOS_PER_COMMIT:
                self.commit({})
                since = 0
            if on_progress is not None:
                on_progress(first + len(part), len(todo), "reading frames of videos")

    def finish(self, wanted: _Wanted, *, is_kept: bool) -> PooledIndex:
        self._failures |= wanted.unusable
        self.commit(wanted.folders)
        index = read_index(self._folder, self._frames, is_kept=is_kept)
        if index is None:
            raise CannotWriteError(0, "what was written there is not what is read")
        return index

    def _read(self, key: str) -> np.ndarray | None:
        """(frames, dim) float16; one damaged video is no reason to leave out the others."""
        try:
            values: np.ndarray = to_float16(self._frames.frames([key]))[0]
        except QleError as error:
            self._failures[key] = str(error).splitlines()[0]
            return None
        return values

    def append(self, keys: Sequence[str], vectors: np.ndarray, commit: Mapping[str, int]) -> None:
        """vectors: (videos, frames, dim) float16. commit: when each was committed, in microseconds."""
        means = to_float16(vectors.astype(np.float32).mean(axis=1))
        first, stop = self._num_rows, self._num_rows + len(keys)
        append_rows(self._folder / self._vectors, vectors, first)
        append_rows(self._folder / self._means, means, first)
        self._digests = with_rows(self._digests, self._folder / self._means, means, first)
        for number, key in enumerate(keys):
            self._of[key] = (commit[key], first + number, short_digest(vectors[number]))
        self._num_rows = stop

    def _compact(self, old: PooledIndex) -> None:
        """Into new files; who has the old ones mapped goes on with them."""
        kept, commit = sorted(self._of, key=lambda key: self._of[key][1]), {key: self._of[key][0] for key in self._of}
        numbers = np.array([old.number_of_key[key] for key in kept], dtype=np.int64)
        name = secrets.token_hex(4)
        self._vectors, self._means = f"vectors-{name}.f16", f"means-{name}.f16"
        self._num_rows, self._digests, self._of = 0, [], {}
        for first in range(0, len(kept), VIDEOS_PER_READ):
            part = slice(first, first + VIDEOS_PER_READ)
            self.append(kept[part], to_float16(old.frames(numbers[part])), commit)

    def commit(self, folders: Mapping[str, int]) -> None:
        """Everything appended so far counts from here on. Without `folders` it is known to be behind."""
        values = list(self._of.values())
        commit, row, digest = zip(*values, strict=True) if values else ((), (), ())
        table = Table.of(list(self._of), np.array(commit), np.array(row), np.array(digest, dtype=np.uint64))
        content = table.to_bytes()
        table_digest = xxhash.xxh3_128_hexdigest(content)
        is_known = self._written is not None and self._written.table_digest == table_digest
        name = self._written.table if is_known and self._written is not None else f"table-{secrets.token_hex(8)}.npz"
        record = PooledRecord(
            space=self._frames.space.record.hash, stream=self._frames.stream, num_frames=self._frames.num_frames,
            dim=self._frames.dim, num_rows=self._num_rows, vectors=self._vectors, means=self._means,
            table=name, table_digest=table_digest, mean_digests=tuple(self._digests),
            folders=dict(folders), failures=self._failures,
        )  # fmt: skip
        if record == self._written:
            return
        try:
            for grown in (self._vectors, self._means):
                if self._num_rows:
                    sync_file(self._folder / grown, "full")
            if not is_known:
                write_record(self._folder, record.table, content)
            write_record(self._folder, RECORD_FILE, with_digest(record.model_dump_json()))
        except OSError as error:
            raise CannotWriteError(*error.args) from error
        self._written = record
        self._tidy({record.vectors, record.means, record.table})

    def _tidy(self, kept: set[str]) -> None:
        """Files of this index that no record names any more, and what a kill has left."""
        for path in self._folder.iterdir():
            is_ours = path.name.startswith(("vectors-", "means-", "table-", ".qle-"))
            if is_ours and path.name not in kept:
                remove(self._folder.parent, path)
