"""Rows of one video, in any order -> a committed video, or nothing. The one commit protocol for both formats.

    open      a temp folder (a new one, or that of an attempt that died), the arrays laid out, times written
    write     rows go to their place in their file; a file that is whole is closed, put on the disk and logged
    commit    the rest on the disk, _COMMIT.json last, then one rename gives the video its name

Killed at any moment, the video is missing or whole, and the complete files of a Zarr attempt are kept for the next.
Two writers of one video may race: the rename of a folder onto a folder that is not empty fails, so the first one wins
and the second returns the winner's record. Claims (claims.py) only save the double work.
"""

import errno
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import xxhash

from qle import __version__
from qle.cache import attempts
from qle.cache.attempts import Attempt, AttemptRecord
from qle.cache.files import hdf5_store, zarr_store
from qle.cache.files.extents import extents
from qle.cache.files.quantise import SCALE, encode
from qle.cache.handles import folder_handle, make_folder, open_file, remove, rename
from qle.cache.layout import COMMIT_FILE, STORE_SUFFIXES, VIDEOS, check_key, video_folder
from qle.cache.records import CommitRecord, FileRecord, RawRows, SourceFacts, StreamRecord
from qle.cache.spaces import SpaceFolder, read_commit
from qle.durable import Durability, Syncer, hash_file, sync_file, write_at, write_file
from qle.errors import CacheCorruptError, CacheError, CacheMissingError
from qle.types import RowPlan, StoreKind, Stream

STEPS = (
    "attempt_begun",
    "arrays_created",
    "file_closed",
    "file_logged",
    "all_synced",
    "record_written",
    "old_moved_aside",
    "renamed",
    "parent_synced",
    "cleaned",
)
"""Names that `on_step` is called with, in this order, after each step that a kill could separate from the next one.
`file_closed` and `file_logged` come once a file; `old_moved_aside` only where an old version is replaced."""


@dataclass(slots=True)
class _File:
    """A data file that is being filled."""

    path: str
    missing: int = 0
    """Rows of all its streams that are still to come."""
    fd: int = -1
    digest: xxhash.xxh3_128 | None = field(default_factory=xxhash.xxh3_128)
    """Runs along while the bytes come in order; None once they did not, then the file is read again."""
    hashed_bytes: int = 0
    done: FileRecord | None = None


class VideoWriter:
    """Writes one video. Not for several threads at a time."""

    def __init__(
        self,
        space: SpaceFolder,
        record: AttemptRecord,
        attempt: Attempt,
        *,
        rows: RowPlan,
        source: SourceFacts,
        replace: bool,
        on_step: Callable[[str], None],
    ) -> None:
        """Use `open`."""
        self._space, self._record, self._attempt = space, record, attempt
        self._rows, self._source, self._replace, self._on_step = rows, source, replace, on_step
        self._streams = {stream.name: stream for stream in space.streams}
        self._written = {name: np.zeros(rows.num_rows, dtype=bool) for name in self._streams}
        self._syncer = Syncer(attempt.durability)
        self._files: dict[str, _File] = {}
        self._layouts: dict[str, RawRows] = {}
        self._is_damaged = np.zeros(rows.num_rows, dtype=bool)
        for first, stop in attempt.damaged():
            self._is_damaged[first:stop] = True

    @classmethod
    def open(  # noqa: PLR0913  (the last three are choices of a run, not of a video, and have defaults)
        cls,
        space: SpaceFolder,
        key: str,
        rows: RowPlan,
        source: SourceFacts,
        *,
        store: StoreKind = "zarr",
        durability: Durability = "full",
        replace: bool = False,
        has_claim: bool = False,
        on_step: Callable[[str], None] = lambda step: None,
    ) -> Self:
        """Begin a video, or continue where an attempt at the same rows of the same source has died.

        replace: an old version, stale or damaged, gives way to this one. has_claim: the caller holds the claim of this
        key, so that an attempt of another machine or of a frozen process counts as dead too.
        """
        check_key(key)
        _check_rows(key, rows)
        record = attempts.describe(
            key=key, space=space.record.hash, store=store, fingerprint=source.fingerprint, rows=rows
        )
        attempt = attempts.begin(space.path, record, durability=durability, has_claim=has_claim)
        on_step("attempt_begun")
        writer = cls(space, record, attempt, rows=rows, source=source, replace=replace, on_step=on_step)
        try:
            writer._begin()
        except OSError as error:
            explained = writer._explain(error)  # before we leave: a folder that is gone would look taken over
            writer.abandon(keep_shards=True)
            raise explained from error
        except BaseException:
            writer.abandon(keep_shards=True)
            raise
        return writer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Without a commit the attempt is left to the next run."""
        if self._attempt.path.exists():
            self.abandon(keep_shards=True)

    @property
    def is_done(self) -> np.ndarray:
        """(rows,) bool: every token stream of the row is in a complete file, so it need not be made (again)."""
        done = np.ones(self._rows.num_rows, dtype=bool)
        for stream in self._space.record.streams:
            for extent in extents(self._layouts[stream.name], stream.row_bytes, 0, self._rows.num_rows):
                if self._files[extent.path].done is None:
                    done[extent.first_row : extent.first_row + extent.num_rows] = False
        return done

    @property
    def is_taken_over(self) -> bool:
        """Whether another process has taken this attempt for dead, say because this one stood still for long."""
        return not self._attempt.path.exists()

    def write(self, stream_name: str, rows: np.ndarray, values: np.ndarray) -> None:
        """Put rows (their numbers, in any order) where they belong. Rows of a complete file are left as they are.

        Values come in the stored dtype (bfloat16 as uint16), or as floats, which are converted; int8 then brings `scale`.
        """
        stream = self._streams[stream_name]
        if values.shape != (len(rows), *stream.row_shape):
            raise CacheError(
                f"stream {stream_name!r}: got {values.shape} for {len(rows)} rows, expected (rows, *{stream.row_shape})"
            )
        try:
            stored, scale = encode(stream, values)
        except CacheError as error:
            raise CacheError(f"video {self._record.key!r}: {error}") from error
        try:
            for first, last in _runs(rows):
                self._write_run(stream, int(rows[first]), stored[first:last])
        except OSError as error:
            raise self._explain(error) from error
        if scale is not None:
            self.write(SCALE, rows, scale)

    def note_damaged(self, rows: np.ndarray) -> None:
        """These rows are made of frames that the decoder calls damaged; to be said before they are written. They become
        invalid, unless the source facts say `keeps_damaged`."""
        self._is_damaged[rows] = True
        try:
            self._attempt.note_damaged([(int(rows[first]), int(rows[last - 1]) + 1) for first, last in _runs(rows)])
        except OSError as error:
            raise self._explain(error) from error

    def commit(
        self,
        *,
        attempt: int = 1,
        versions: Mapping[str, str] | None = None,
        timings_s: Mapping[str, float] | None = None,
    ) -> CommitRecord:
        """Make the video exist. Returns its record: ours, or that of another writer who was faster."""
        if self._is_damaged.any():
            self._rewrite_valid()
        for name, written in self._written.items():
            if num_missing := int(np.count_nonzero(~written)):
                first = int(np.flatnonzero(~written)[0])
                raise CacheError(
                    f"video {self._record.key!r} cannot be committed: {num_missing} of {len(written)} rows of "
                    f"{name!r} are missing, the first is row {first}"
                )
        try:
            record = self._commit_record(self._finish_files(), attempt, versions or {}, timings_s or {})
            self._write_record(record)
            winner = self._publish()
            self._attempt.remove()
            self._syncer.close()
        except OSError as error:
            raise self._explain(error) from error
        self._on_step("cleaned")
        return winner or record

    def abandon(self, keep_shards: bool) -> None:
        """Stop without a commit. keep_shards: the next attempt may continue from the files that are complete."""
        for file in self._files.values():
            _close(file)
        self._syncer.close()
        tokens = {stream.name for stream in self._space.record.streams}
        has_shards = any(file.done and file.path.partition("/")[0] in tokens for file in self._files.values())
        if keep_shards and has_shards and self._attempt.path.exists():
            self._drop_incomplete()
            attempts.release(self._attempt)
        else:
            self._attempt.remove()

    def _drop_incomplete(self) -> None:
        """Nobody can use half a file, and the disk may be full."""
        for file in self._files.values():
            if file.done is None:
                remove(self._attempt.space, self._attempt.video / file.path)

    def _begin(self) -> None:
        """Lay out the arrays, recognise what an earlier attempt left, write the times."""
        num_rows = self._rows.num_rows
        create = zarr_store.create if self._record.store == "zarr" else hdf5_store.create
        attempt = self._attempt
        self._layouts = create(attempt.space, attempt.video, list(self._streams.values()), num_rows)
        self._on_step("arrays_created")
        for name, stream in self._streams.items():
            for extent in extents(self._layouts[name], stream.row_bytes, 0, num_rows):
                file = self._files.setdefault(extent.path, _File(extent.path))
                file.missing += extent.num_rows
                if kept := self._attempt.kept.get(extent.path):
                    file.done = kept
                    self._written[name][extent.first_row : extent.first_row + extent.num_rows] = True
        every = np.arange(num_rows)
        self.write("pts", every, np.asarray(self._rows.pts_s, dtype=np.float64))
        self.write("index", every, np.asarray(self._rows.frame_index, dtype=np.int64))
        self.write("valid", every, np.asarray(self._rows.is_valid, dtype=bool))

    def _rewrite_valid(self) -> None:
        """Frames that turned out to be damaged make their rows invalid, at the end, when all were seen."""
        num_rows = self._rows.num_rows
        self._written["valid"][:] = False
        for extent in extents(self._layouts["valid"], 1, 0, num_rows):
            file = self._files[extent.path]
            file.done, file.digest, file.missing = None, None, file.missing + extent.num_rows
            if self._record.store == "zarr":
                remove(self._attempt.space, self._attempt.video / extent.path)
        self.write("valid", np.arange(num_rows), self._is_valid)

    def _write_run(self, stream: Stream, start: int, values: np.ndarray) -> None:
        """Consecutive rows: one pwrite for each file that they touch."""
        stop = start + len(values)
        if start < 0 or stop > self._rows.num_rows:
            raise CacheError(
                f"stream {stream.name!r}: rows {start}..{stop - 1} of a video of {self._rows.num_rows} rows"
            )
        for extent in extents(self._layouts[stream.name], stream.row_bytes, start, stop):
            file = self._files[extent.path]
            if file.done is not None:
                continue
            rows = slice(extent.first_row, extent.first_row + extent.num_rows)
            part = values[extent.first_row - start : extent.first_row - start + extent.num_rows]
            self._write_bytes(file, part.reshape(-1).view(np.uint8).data, extent.offset)
            file.missing -= int(np.count_nonzero(~self._written[stream.name][rows]))
            self._written[stream.name][rows] = True
            if file.missing == 0:
                self._close_file(file, stream)

    def _write_bytes(self, file: _File, content: memoryview, offset: int) -> None:
        if file.fd < 0:
            flags = os.O_RDWR | (os.O_CREAT if self._record.store == "zarr" else 0)
            file.fd = open_file(self._attempt.space, self._attempt.video / file.path, flags)
        write_at(file.fd, content, offset)
        if file.digest is not None and offset == file.hashed_bytes:
            file.digest.update(content)
            file.hashed_bytes += len(content)
        else:
            file.digest = None

    def _close_file(self, file: _File, stream: Stream) -> None:
        """All rows are there: write what follows them, log the file as complete, send it to the disk.

        The log may reach the disk before the file does: whoever continues from it checks the hash.
        """
        layout = self._layouts[stream.name]
        if layout.rows_per_chunk:
            num_rows = int(os.fstat(file.fd).st_size) // stream.row_bytes
            tail = zarr_store.shard_tail(num_rows, stream, layout)
            self._write_bytes(file, memoryview(tail), num_rows * stream.row_bytes)
        size = os.fstat(file.fd).st_size
        _close(file)
        path = self._attempt.video / file.path
        self._syncer.add(path)
        is_hashed = file.digest is not None and file.hashed_bytes == size
        digest = file.digest.hexdigest() if file.digest and is_hashed else hash_file(path)
        file.done = FileRecord(path=file.path, size=size, xxh3=digest)
        self._on_step("file_closed")
        if self._record.store == "zarr":
            self._attempt.log(file.done)
        self._on_step("file_logged")

    def _finish_files(self) -> list[FileRecord]:
        """Hash what the stores wrote beside the rows, wait for the disk, check that nobody took our files."""
        video = self._attempt.video
        done = {file.path: file.done for file in self._files.values() if file.done}
        for folder, _, names in os.walk(video):
            if Path(folder) != video:  # that one follows with the record
                self._syncer.add(Path(folder))
            for path in (Path(folder, name) for name in names):
                name = path.relative_to(video).as_posix()
                if name not in done:
                    self._syncer.add(path)
                    done[name] = FileRecord(path=name, size=path.stat().st_size, xxh3=hash_file(path))
        for name, file in done.items():
            if (video / name).stat().st_size != file.size:
                raise CacheError(f"{video / name} changed size while video {self._record.key!r} was being written")
        self._syncer.wait()
        self._on_step("all_synced")
        return [done[name] for name in sorted(done)]

    def _commit_record(
        self, files: list[FileRecord], attempt: int, versions: Mapping[str, str], timings_s: Mapping[str, float]
    ) -> CommitRecord:
        rows = self._rows
        return CommitRecord(
            key=self._record.key,
            space=self._record.space,
            store=self._record.store,
            num_rows=rows.num_rows,
            num_valid=int(np.count_nonzero(self._is_valid)),
            first_pts_s=float(rows.pts_s[0]),
            last_pts_s=float(rows.pts_s[-1]),
            source=self._facts,
            streams=tuple(
                StreamRecord(
                    name=name,
                    shape=(rows.num_rows, *stream.row_shape),
                    axes=stream.axes,
                    dtype=stream.dtype,
                    raw=self._layouts[name],
                )
                for name, stream in self._streams.items()
            ),
            files=tuple(files),
            attempt=attempt,
            host=socket.gethostname(),
            created=datetime.now(UTC),
            versions={"qle": __version__, **versions},
            timings_s=dict(timings_s),
        )

    @property
    def _facts(self) -> SourceFacts:
        """What is known of the source, with the damage that this writer was told of beside what was known before."""
        if not self._is_damaged.any():
            return self._source
        is_damaged = self._is_damaged.copy()
        for first, stop in self._source.damaged_rows:
            is_damaged[first:stop] = True
        rows = np.flatnonzero(is_damaged)
        ranges = tuple((int(rows[first]), int(rows[last - 1]) + 1) for first, last in _runs(rows))
        return self._source.model_copy(update={"damaged_rows": ranges})

    @property
    def _is_valid(self) -> np.ndarray:
        valid = np.asarray(self._rows.is_valid, dtype=bool)
        return valid if self._source.keeps_damaged else valid & ~self._is_damaged

    def _write_record(self, record: CommitRecord) -> None:
        video = self._attempt.video
        with folder_handle(self._attempt.space, video) as handle:
            write_file(video / COMMIT_FILE, record.to_json(indent=None).encode(), "none", handle)
        self._syncer.add(video / COMMIT_FILE)
        self._syncer.add(video)
        self._syncer.wait()
        self._on_step("record_written")

    def _publish(self) -> CommitRecord | None:
        """Give the folder its name. Returns the winner's record where another writer was faster."""
        target = video_folder(self._space.path, self._record.key, self._record.store)
        if not target.parent.exists():
            make_folder(self._space.path, target.parent)
            sync_file(self._space.path / VIDEOS, self._attempt.durability)
        if self._replace:
            self._move_old_aside()
        elif winner := self._standing():
            return winner
        try:
            rename(self._space.path, self._attempt.video, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if winner := self._standing():
                return winner
            self._move_old_aside()  # a folder without a usable record is no video
            rename(self._space.path, self._attempt.video, target)
        self._on_step("renamed")
        sync_file(target.parent, self._attempt.durability)
        self._on_step("parent_synced")
        return None

    def _standing(self) -> CommitRecord | None:
        """The record of the video that stands there by itself; a packed one is hidden by ours, not in its way."""
        folder = self._space.folder(self._record.key)
        if folder is None:
            return None
        try:
            return read_commit(folder, self._record.key, self._space.record)
        except (CacheCorruptError, CacheMissingError):
            return None

    def _move_old_aside(self) -> None:
        """Out of its place by a rename, so that it is the old video or none, never half of one; deleted with the rest."""
        for store in STORE_SUFFIXES:
            old = video_folder(self._space.path, self._record.key, store)
            if old.exists():
                rename(self._space.path, old, self._attempt.path / f"replaced.{store}")
                self._on_step("old_moved_aside")

    def _explain(self, error: OSError) -> CacheError:
        """What a foreign error means here."""
        key = self._record.key
        if isinstance(error, FileNotFoundError) and self.is_taken_over:
            return CacheError(f"video {key!r}: another process has taken over this attempt; its result will be as good")
        hint = "\nfree some space and run the same command again: complete files are kept"
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return CacheError(
            f"video {key!r}: cannot write into {self._space.path}: {error.strerror or error}{hint if is_full else ''}"
        )


def _close(file: _File) -> None:
    if file.fd >= 0:
        os.close(file.fd)
        file.fd = -1


def _runs(rows: np.ndarray) -> list[tuple[int, int]]:
    """Where consecutive row numbers begin and end: [3, 4, 5, 9] gives (0, 3), (3, 4)."""
    if not len(rows):
        return []
    borders = np.flatnonzero(np.diff(rows) != 1) + 1
    return list(zip([0, *borders.tolist()], [*borders.tolist(), len(rows)], strict=True))


def _check_rows(key: str, rows: RowPlan) -> None:
    if not rows.num_rows:
        raise CacheError(f"video {key!r} has no rows: there is nothing to store")
    if not len(rows.frame_index) == len(rows.pts_s) == len(rows.is_valid):
        raise CacheError(f"video {key!r}: the row plan has columns of different lengths")
    if not np.isfinite(rows.pts_s).all():
        raise CacheError(f"video {key!r}: the row plan has times that are not finite")
