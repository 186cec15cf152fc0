"""Many short videos -> few arrays: `qle cache pack`. A tiny video costs a dozen files, a packed one costs none.

A batch of videos is copied, as stored bytes, end to end into the arrays of a new pack (packs.py) in a temp folder; files
are put on the disk, _PACK.json is written last, and one rename makes the pack exist. Only then do the single videos go.
Killed in between, nothing is lost: a video is there by itself, or in a pack, or both, and the next run finishes the rest.
"""

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qle import __version__
from qle.cache import leftovers, packs
from qle.cache.claims import whole_space
from qle.cache.files import zarr_store
from qle.cache.files.extents import extents
from qle.cache.handles import folder_handle, make_folder, open_file, remove, rename
from qle.cache.index import LOCATION_COLUMNS, SCHEMA, load_index, record_row
from qle.cache.integrity import check_content
from qle.cache.layout import TMP
from qle.cache.leftovers import PACK
from qle.cache.reader import Space, Video
from qle.cache.records import FileRecord, RawRows, StreamRecord
from qle.cache.spaces import SpaceFolder, read_commit
from qle.cache.tools.removal import remove_folder
from qle.cache.tools.selection import chosen_spaces, no_progress
from qle.durable import hash_file, owned_name, sync_file, sync_tree, write_at, write_file
from qle.errors import CacheCorruptError, CacheError, CacheMissingError
from qle.types import OnProgress, Stream

MAX_VIDEO_BYTES = 64 << 20
"""A longer video gains nothing: its files are large already."""
MAX_PACK_BYTES = 4 << 30
COPY_BYTES = 64 << 20


@dataclass(slots=True, kw_only=True)
class PackReport:
    """What was packed."""

    num_packed: int = 0
    num_packs: int = 0
    num_removed: int = 0
    """Single videos that gave way to their packed copy; more than were packed after an interrupted run."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Videos that are not as recorded and stay as they are: key -> what is wrong."""


def pack(
    root: Path,
    *,
    spaces: Sequence[str] = (),
    max_video_bytes: int = MAX_VIDEO_BYTES,
    max_pack_bytes: int = MAX_PACK_BYTES,
    on_progress: OnProgress = no_progress,
) -> PackReport:
    """Pack the short videos of some or all spaces; progress in videos."""
    report = PackReport()
    for space in chosen_spaces(root, spaces):
        with whole_space(space):
            _pack_space(space, max_video_bytes, max_pack_bytes, report, on_progress)
    return report


def _pack_space(
    space: SpaceFolder, max_video_bytes: int, max_pack_bytes: int, report: PackReport, on_progress: OnProgress
) -> None:
    leftovers.clear(space.path)
    _remove_packed(space, report)
    keys = _short(space, max_video_bytes)
    done = 0
    for batch in _batches(space, keys, max_pack_bytes, report):
        if len(batch) > 1:
            _make_pack(space, batch)
            report.num_packed += len(batch)
            report.num_packs += 1
            _remove_packed(space, report)
        done += len(batch)
        on_progress(done, len(keys), batch[-1].key)


def _short(space: SpaceFolder, max_bytes: int) -> list[str]:
    """Keys of the single videos that are small enough, in order, so that neighbours stay neighbours.

    One that hides an older packed version stays single: of two packed versions no reader could tell which one counts.
    """
    index = load_index(space)
    columns = zip(
        index.texts("key"), index.texts("pack"), index.texts("problem"), index.column("size_bytes"), strict=True
    )
    small = {key for key, pack, problem, size in columns if not pack and not problem and size <= max_bytes}
    return sorted(small - packs.keys(space.path))


def _batches(space: SpaceFolder, keys: Sequence[str], max_bytes: int, report: PackReport) -> Iterator[list[Video]]:
    reader = Space(space)
    batch: list[Video] = []
    size = 0
    for key in keys:
        try:
            video = reader.video(key)
            check_content(video.folder, video.record)
        except (CacheCorruptError, CacheMissingError) as error:
            report.damaged[key] = str(error).splitlines()[0]
            continue
        if batch and size + video.record.size_bytes > max_bytes:
            yield batch
            batch, size = [], 0
        batch.append(video)
        size += video.record.size_bytes
    if batch:
        yield batch


def _make_pack(space: SpaceFolder, videos: Sequence[Video]) -> None:
    temp = space.path / TMP / owned_name(PACK)
    try:
        make_folder(space.path, temp)
        num_rows = sum(video.num_rows for video in videos)
        layouts = zarr_store.create(space.path, temp, space.streams, num_rows)
        for stream in space.streams:
            _write_stream(space.path, temp, stream, layouts[stream.name], videos)
        with open(open_file(space.path, temp / packs.MEMBERS_FILE, os.O_WRONLY | os.O_CREAT), "wb") as file:
            pq.write_table(_members(videos, layouts), file, compression="zstd")
        streams = tuple(_stream_record(stream, num_rows, layouts[stream.name]) for stream in space.streams)
        record = packs.PackRecord(
            space=space.record.hash,
            num_videos=len(videos),
            num_rows=num_rows,
            streams=streams,
            files=_files(temp),
            created=datetime.now(UTC),
            versions={"qle": __version__},
        )
        sync_tree(temp)
        with folder_handle(space.path, temp) as handle:
            write_file(temp / packs.PACK_FILE, record.to_json().encode(), "full", handle)
        sync_file(temp, "full")
        target = space.path / packs.PACKS / f"pack-{secrets.token_hex(8)}"
        make_folder(space.path, target.parent)
        rename(space.path, temp, target)
        sync_file(target.parent, "full")
    except OSError as error:
        raise CacheError(
            f"cannot write a pack into {space.path}: {error.strerror}\nnothing is lost; run the same command again"
        ) from error
    finally:
        remove(space.path, temp)


class _Files:
    """The files of one stream, filled from front to back."""

    def __init__(self, space: Path, folder: Path, stream: Stream, layout: RawRows) -> None:
        self._space, self._folder, self._stream, self._layout = space, folder, stream, layout
        self._path, self._fd, self._end = "", -1, 0

    def append(self, first: int, rows: np.ndarray) -> None:
        """Rows first.. of the stream; the next call goes on where this one ends."""
        for extent in extents(self._layout, self._stream.row_bytes, first, first + len(rows)):
            if extent.path != self._path:
                self.finish()
                self._path = extent.path
                self._fd = open_file(self._space, self._folder / extent.path, os.O_RDWR | os.O_CREAT)
            part = rows[extent.first_row - first : extent.first_row - first + extent.num_rows]
            write_at(self._fd, part.reshape(-1).view(np.uint8).data, extent.offset)
            self._end = extent.offset + part.nbytes

    def finish(self) -> None:
        """What follows the rows of a file."""
        if self._fd < 0:
            return
        if self._layout.rows_per_chunk:
            tail = zarr_store.shard_tail(self._end // self._stream.row_bytes, self._stream, self._layout)
            write_at(self._fd, memoryview(tail), self._end)
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _write_stream(space: Path, folder: Path, stream: Stream, layout: RawRows, videos: Sequence[Video]) -> None:
    """Stored bytes of all videos end to end."""
    step = max(1, COPY_BYTES // max(1, stream.row_bytes))
    with closing(_Files(space, folder, stream, layout)) as files:
        first = 0
        for video in videos:
            for start in range(0, video.num_rows, step):
                rows = video.read(stream.name, start, min(start + step, video.num_rows), raw=True)
                files.append(first + start, rows)
            first += video.num_rows
        files.finish()


def _members(videos: Sequence[Video], layouts: Mapping[str, RawRows]) -> pa.Table:
    """A row for each video: its facts, and its record as it now is."""
    rows: list[dict[str, Any]] = []
    first = 0
    for video in videos:
        streams = tuple(
            stream.model_copy(update={"raw": layouts[stream.name].model_copy(update={"first_row": first})})
            for stream in video.record.streams
        )
        record = video.record.model_copy(update={"store": "zarr", "streams": streams, "files": ()})
        size = sum(stream.stream.row_bytes * video.num_rows for stream in streams)
        rows.append({**record_row(record), "size_bytes": size, "record": record.to_json(indent=None)})
        first += video.num_rows
    fields = [field for field in SCHEMA if field.name not in LOCATION_COLUMNS]
    return pa.Table.from_pylist(rows, schema=pa.schema([*fields, ("record", pa.string())]))


def _stream_record(stream: Stream, num_rows: int, layout: RawRows) -> StreamRecord:
    shape = (num_rows, *stream.row_shape)
    return StreamRecord(name=stream.name, shape=shape, axes=stream.axes, dtype=stream.dtype, raw=layout)


def _files(folder: Path) -> tuple[FileRecord, ...]:
    """Every file, hashed while it is in memory."""
    records = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        records.append(FileRecord(path=name, size=path.stat().st_size, xxh3=hash_file(path)))
    return tuple(records)


def _remove_packed(space: SpaceFolder, report: PackReport) -> None:
    """Single videos that a pack holds too, made from the same source, go; a pack that cannot be read holds nothing."""
    for opened in packs.open_packs(space.path):
        if packs.wrong_sizes(opened):
            continue
        for key in opened.row_of_key:
            folder = space.folder(key)
            if folder is None:
                continue
            try:
                own, packed = read_commit(folder, key, space.record), opened.member(key)
            except CacheError:  # damaged, and for others to say: what cannot be compared stays
                continue
            if own.created == packed.created and own.source.fingerprint == packed.source.fingerprint:
                remove_folder(space.path, folder)
                report.num_removed += 1
