"""Packs: many short videos in few arrays, read like any other video.

    <space>/packs/<name>/               a Zarr group; row ranges of its arrays are videos
        patch/ frame/ pts/ index/ valid/ ...    all videos end to end
        members.parquet                 a row for each video: the columns of the index, and its commit record
        _PACK.json                      written last: layouts, and size and hash of every file

A pack never changes: it appears by one rename and goes as a whole. A video's record in a pack is the one that it was
committed with, but its streams begin at `first_row` of the pack's arrays. A video that stands under videos/ hides a packed
one of the same key, so extracting again needs no pack to be touched. Read here, made in pack.py.
"""

import os
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from qle.cache.files.extents import extents
from qle.cache.layout import SPACE_FILE
from qle.cache.plausible import layout_contradiction, streams_contradiction
from qle.cache.records import (
    CommitRecord,
    Count,
    FileRecord,
    SealedRecord,
    SpaceRecord,
    StreamRecord,
    parse_record,
    read_record,
)
from qle.errors import CacheCorruptError
from qle.inputs import read_record_bytes

if TYPE_CHECKING:  # loader workers come through here, and most caches have no pack
    import pyarrow as pa

PACKS = "packs"
PACK_FILE = "_PACK.json"
MEMBERS_FILE = "members.parquet"


class PackRecord(SealedRecord):
    """_PACK.json: this pack is complete, and this is what it consists of."""

    space: str
    """Hash of the space."""
    num_videos: Count
    num_rows: Count
    streams: tuple[StreamRecord, ...]
    files: tuple[FileRecord, ...]
    """Every file but this one, sorted by path."""
    created: datetime
    versions: dict[str, str]

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Pack:
    """One pack, opened."""

    path: Path
    record: PackRecord
    members: "pa.Table"

    @cached_property
    def row_of_key(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.members["key"].to_pylist())}

    @cached_property
    def _files(self) -> dict[str, FileRecord]:
        return {file.path: file for file in self.record.files}

    def member(self, key: str) -> CommitRecord:
        """The record of a video, with those files of the pack that hold its rows."""
        text = self.members["record"][self.row_of_key[key]].as_py()
        record = parse_record(CommitRecord, text.encode(), self.path / MEMBERS_FILE)
        if record.key != key or not self._holds(record):
            raise CacheCorruptError(f"{self.path / MEMBERS_FILE}: what it says of {key!r} does not fit {PACK_FILE}")
        paths = {path for stream in record.streams for path in files_of(stream)}
        return record.model_copy(update={"files": tuple(self._files[path] for path in sorted(paths))})

    def _holds(self, record: CommitRecord) -> bool:
        """Whether the rows of a video are a range of rows of the pack's arrays, the same one in each."""
        arrays = {stream.name: stream for stream in self.record.streams}
        first_row = record.streams[0].raw.first_row if record.streams and record.streams[0].raw else 0
        expected = {
            name: array.model_copy(
                update={
                    "shape": (record.num_rows, *array.shape[1:]),
                    "raw": array.raw and array.raw.model_copy(update={"first_row": first_row}),
                }
            )
            for name, array in arrays.items()
        }
        is_inside = first_row + record.num_rows <= self.record.num_rows
        return is_inside and {stream.name: stream for stream in record.streams} == expected


def files_of(stream: StreamRecord) -> set[str]:
    """The files that hold the rows of a stream."""
    if stream.raw is None:
        return set()
    return {extent.path for extent in extents(stream.raw, stream.stream.row_bytes, 0, stream.shape[0])}


def wrong_sizes(pack: Pack) -> dict[str, str]:
    """Files of a pack that are missing or of another size, and what is wrong with each."""
    wrong = {}
    for file in pack.record.files:
        try:
            size = os.lstat(pack.path / file.path).st_size
        except (FileNotFoundError, NotADirectoryError):
            wrong[file.path] = f"{file.path} is missing"
            continue
        if size != file.size:
            wrong[file.path] = f"{file.path} has {size} bytes, expected {file.size}"
    return wrong


def find(space: Path, key: str) -> tuple[Path, CommitRecord] | None:
    """The folder and the record of a packed video. A pack that cannot be read is in nobody's way but its own videos'."""
    unreadable: CacheCorruptError | None = None
    for path in pack_folders(space):
        try:
            pack = open_pack(path)
        except CacheCorruptError as error:
            unreadable = error
            continue
        if key in pack.row_of_key:
            return pack.path, pack.member(key)
    if unreadable is not None:
        raise unreadable
    return None


def keys(space: Path) -> set[str]:
    """Keys of all packed videos."""
    return {key for pack in open_packs(space) for key in pack.row_of_key}


def open_packs(space: Path) -> list[Pack]:
    """Every complete pack of a space, in the order of their names; each is read once in a process."""
    return [open_pack(path) for path in pack_folders(space)]


def pack_folders(space: Path) -> list[Path]:
    """Where the packs stand."""
    try:
        names = os.listdir(space / PACKS)
    except FileNotFoundError:
        return []
    paths = [space / PACKS / name for name in sorted(names) if not name.startswith(".")]
    return [path for path in paths if not path.is_symlink()]


def members(space: Path) -> "pa.Table | None":
    """The videos of all packs below each other, with the name of their pack; None where there is no pack."""
    import pyarrow as pa

    tables = [
        pack.members.append_column("pack", pa.array([pack.path.name] * len(pack.members), pa.string()))
        for pack in open_packs(space)
    ]
    return pa.concat_tables(tables) if tables else None


def videos_in_file(pack: Pack, path: str) -> tuple[str, ...]:
    """The videos that have rows in a file of a pack; none for a file that holds no rows."""
    return tuple(key for key in pack.row_of_key if any(file.path == path for file in pack.member(key).files))


@lru_cache(maxsize=1024)
def open_pack(path: Path) -> Pack:
    """One pack. Names of packs are random and their content never changes, so what was read once stays true."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        record = read_record(PackRecord, path / PACK_FILE)
        space = read_record(SpaceRecord, path.parent.parent / SPACE_FILE)
        with pq.ParquetFile(pa.BufferReader(_members_file(path, record))) as file:
            pack = Pack(path, record, file.read())
    except (OSError, pa.ArrowException) as error:
        raise CacheCorruptError(
            f"pack {path} cannot be read: {error}\nif it is beyond help, delete the folder and extract its videos again"
        ) from error
    if record.space != space.hash:
        raise CacheCorruptError(
            f"pack {path} was made for space {record.space[:12]}, not for {space.hash[:12]}; take the folder away"
        )
    sizes = {file.path: file.size for file in record.files}
    if problem := streams_contradiction(record.streams, space, record.num_rows) or layout_contradiction(
        record.streams, sizes, is_exact=True
    ):
        raise CacheCorruptError(f"pack {path}: {PACK_FILE} contradicts itself: {problem}; take the folder away")
    if not {"key", "record"} <= set(pack.members.schema.names) or len(pack.members) != record.num_videos:
        raise CacheCorruptError(
            f"pack {path}: {MEMBERS_FILE} does not list the {record.num_videos} videos of {PACK_FILE}"
        )
    return pack


def _members_file(pack: Path, record: PackRecord) -> bytes:
    """The list of videos, if every byte of it is as it was written: a parser of tables is not safe with others."""
    content = read_record_bytes(pack / MEMBERS_FILE, follow_links=False)
    listed = next((file for file in record.files if file.path == MEMBERS_FILE), None)
    if listed is None or listed.xxh3 != xxhash.xxh3_128_hexdigest(content):
        raise CacheCorruptError(
            f"pack {pack}: {MEMBERS_FILE} is not as it was written\n"
            "if it is beyond help, delete the folder and extract its videos again"
        )
    return content
