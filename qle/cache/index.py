"""index.parquet: the commit records of a space as columns, so that nobody has to open 100,000 small files to list them.

Enters a space on disk, leaves a table with a row for each video. The records are the truth and this is a cache of them:
deleting, corrupting or never writing the file changes nothing but time: it carries a digest of itself, one that does not fit is
made anew, and whoever deletes a video reads its record first. Freshness comes from folders: a commit or removal
changes the mtime of videos/<hh>/, so only those of the 256 folders are listed again whose mtime is not the one that was
stored with the table. A folder that was changed within RACY_NS before it was listed may change once more without showing
it (mtimes are coarse), so its mtime is not believed the next time. In a listed folder a record is read again only if its
inode, mtime or size is new.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from qle.cache import packs
from qle.cache.handles import folder_handle
from qle.cache.layout import COMMIT_FILE, STORE_SUFFIXES, TMP, VIDEOS, key_from_name, video_folder
from qle.cache.plausible import commit_contradiction
from qle.cache.records import CommitRecord, SpaceRecord, read_record
from qle.cache.spaces import SpaceFolder
from qle.durable import name_beside, replace_file, write_file
from qle.errors import REFUSED, CacheError
from qle.inputs import parse_json, read_record_bytes

INDEX_FILE = "index.parquet"
INDEX_VERSION = 3
RACY_NS = 2_000_000_000
DIGEST_BYTES = 16
MOST_INDEX_BYTES = 8 << 30

SCHEMA = pa.schema(
    [
        ("shelf", pa.int16()),  # the <hh> of videos/<hh>/ as a number
        ("name", pa.string()),  # of the video's folder; empty for a packed one
        ("pack", pa.string()),  # name of the pack; empty for a video that stands alone
        ("key", pa.string()),
        ("problem", pa.string()),  # why the record cannot be used; empty for a good one
        ("faults", pa.string()),  # what is wrong with the video itself: broke off, damaged rows; empty for a whole one
        ("num_rows", pa.int64()),
        ("num_valid", pa.int64()),
        ("size_bytes", pa.int64()),
        ("first_pts_s", pa.float64()),
        ("last_pts_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("source_path", pa.string()),
        ("source_size", pa.int64()),
        ("source_mtime_ns", pa.int64()),
        ("source_edge_hash", pa.string()),
        ("source_start_s", pa.float64()),
        ("source_end_s", pa.float64()),
        ("created", pa.timestamp("us", tz="UTC")),
        ("record_id", pa.string()),  # inode, mtime and size of the record file
        ("file_paths", pa.list_(pa.string())),
        ("file_sizes", pa.list_(pa.int64())),
    ]
)

_SUFFIXES = tuple(STORE_SUFFIXES.values())

UNREAD = "unread"
"""In place of what identifies a record that the disk did not give: it tells nothing of the video; the next look reads it."""

LOCATION_COLUMNS = ("shelf", "name", "pack", "record_id", "file_paths", "file_sizes")
"""Where a video stands by itself; everything else is true of it in a pack too."""


@dataclass(frozen=True)
class Index:
    """What is committed in a space at one moment. Packed videos have a `pack`, and neither `name` nor files of their own."""

    space: SpaceFolder
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> np.ndarray:
        """A column of numbers."""
        values: np.ndarray = self.table[name].to_numpy()
        return values

    def texts(self, name: str) -> list[str]:
        """A column of text."""
        values: list[str] = self.table[name].to_pylist()
        return values

    @cached_property
    def row_of_key(self) -> Mapping[str, int]:
        """Where each key stands; of a key that is there in two formats, the one that readers take."""
        suffix = next(iter(STORE_SUFFIXES.values()))
        rows: dict[str, int] = {}
        for row, (key, name) in enumerate(zip(self.texts("key"), self.texts("name"), strict=True)):
            if key not in rows or name.endswith(suffix):
                rows[key] = row
        return rows

    @cached_property
    def num_problems(self) -> int:
        """Folders whose record cannot be used."""
        return len(self) - self.texts("problem").count("")

    def folder(self, row: int) -> Path:
        """Where the video of a row stands; not for packed ones."""
        shelf, name = int(self.table["shelf"][row].as_py()), str(self.table["name"][row].as_py())
        return self.space.path / VIDEOS / f"{shelf:02x}" / name

    def read_again(self, row: int) -> "Index":
        """The row of a single video as its record says now, before anything is done to the video."""
        shelf, name = int(self.table["shelf"][row].as_py()), str(self.table["name"][row].as_py())
        fresh = _read_row(self.space, shelf, name, "")
        return Index(self.space, pa.Table.from_pylist([fresh], schema=SCHEMA))


@dataclass(frozen=True, slots=True)
class _Stored:
    """A table and what the folders looked like when it was made."""

    table: pa.Table
    mtimes_ns: Mapping[int, int]


def load_index(space: SpaceFolder, on_progress: Callable[[int], None] = lambda num_read: None) -> Index:
    """The index as the disk is now; brought up to date and written where it was behind. Needs no write permission.

    `on_progress` is called with the number of records that had to be read so far.
    """
    stored = _read(space)
    shelves = _shelves(space.path)
    changed = {shelf: mtime for shelf, mtime in shelves.items() if stored.mtimes_ns.get(shelf) != mtime}
    gone = set(stored.mtimes_ns) - set(shelves)
    if not changed and not gone:
        return Index(space, _with_packed(space, stored.table))
    now_ns = _clock_of(space.path)  # before anything is listed
    table, unread = _rescan(space, stored.table, set(changed) | gone, on_progress)
    mtimes = {
        shelf: mtime if now_ns - mtime > RACY_NS and shelf not in unread else -1 for shelf, mtime in shelves.items()
    }
    if table is not stored.table or dict(mtimes) != dict(stored.mtimes_ns):
        _write(space, _Stored(table, mtimes))
    return Index(space, _with_packed(space, table))


def read_records(space: SpaceFolder) -> Index:
    """The same from the records alone, past the file: for whoever is about to delete something."""
    table, _ = _rescan(space, SCHEMA.empty_table(), set(_shelves(space.path)), lambda num_read: None)
    return Index(space, _with_packed(space, table))


def commit_folders(space: Path) -> dict[str, int]:
    """mtimes of every folder that a commit, a removal or a pack changes, by name: while they stay, so do the videos."""
    mtimes = {f"{shelf:02x}": mtime for shelf, mtime in _shelves(space).items()}
    with suppress(FileNotFoundError):
        mtimes[packs.PACKS] = (space / packs.PACKS).stat().st_mtime_ns
    return mtimes


def settled(space: Path, mtimes_ns: Mapping[str, int]) -> dict[str, int]:
    """The same to be stored: -1 for a folder that changed so lately that it may change again without showing it."""
    now_ns = _clock_of(space)
    return {name: mtime if now_ns - mtime > RACY_NS else -1 for name, mtime in mtimes_ns.items()}


def record_row(record: CommitRecord, **location: Any) -> dict[str, Any]:
    """A record as a row; `location` gives shelf, name and record_id."""
    source = record.source
    return {
        "key": record.key,
        "pack": "",
        "problem": "",
        "faults": source.faults,
        "num_rows": record.num_rows,
        "num_valid": record.num_valid,
        "size_bytes": record.size_bytes,
        "first_pts_s": record.first_pts_s,
        "last_pts_s": record.last_pts_s,
        "duration_s": source.duration_s,
        "source_path": source.path,
        "source_size": source.fingerprint.size,
        "source_mtime_ns": source.fingerprint.mtime_ns,
        "source_edge_hash": source.fingerprint.edge_hash,
        "source_start_s": source.start_s,
        "source_end_s": source.end_s,
        "created": record.created,
        "file_paths": [file.path for file in record.files],
        "file_sizes": [file.size for file in record.files],
        **location,
    }


def _read(space: SpaceFolder) -> _Stored:
    """What was written last, or an empty table where that is missing, not as it was written, or of another version or space."""
    try:
        content = _unsealed(read_record_bytes(space.path / INDEX_FILE, MOST_INDEX_BYTES, follow_links=False))
        with pq.ParquetFile(pa.BufferReader(content)) as file:  # read_table would import half of pyarrow
            table = file.read()
        about = parse_json(table.schema.metadata[b"qle_index"])
        is_single = not any(table["pack"].to_pylist())
        is_ours = is_single and about["version"] == INDEX_VERSION and about["space"] == space.record.hash
        if is_ours and table.schema.equals(SCHEMA) and all(map(_is_folder_name, table["name"].to_pylist())):
            return _Stored(table, {int(shelf): mtime for shelf, mtime in about["mtimes_ns"].items()})
    except Exception:  # noqa: BLE001  (whatever it is: the records say everything again)
        pass
    return _Stored(SCHEMA.empty_table(), {})


def _is_folder_name(name: str) -> bool:
    """The index of a stranger's cache must not lead `prune` out of it."""
    return "/" not in name and name.endswith(_SUFFIXES)


def _write(space: SpaceFolder, stored: _Stored) -> None:
    """Best effort: on a disk that is full or read-only the next call does the work again."""
    about = {
        "version": INDEX_VERSION,
        "space": space.record.hash,
        "mtimes_ns": {str(shelf): mtime for shelf, mtime in stored.mtimes_ns.items()},
    }
    table = stored.table.replace_schema_metadata({b"qle_index": json.dumps(about).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=1)
    try:
        replace_file(space.path / INDEX_FILE, _sealed(sink.getvalue().to_pybytes()))
    except OSError:
        return


def _sealed(parquet: bytes) -> bytes:
    """The file with a digest of itself between its pages and its footer.

    Readers of Parquet find pages by their distance from the beginning and the footer by its length, which stands at the end, so
    what lies between them is nobody's, and the file stays a good one.
    """
    pages, footer = _parts(parquet)
    return pages + xxhash.xxh3_128_digest(parquet) + footer


def _unsealed(content: bytes) -> bytes:
    """The file as it was before `_sealed`; ValueError where it is not as it was written."""
    pages, footer = _parts(content)
    parquet = pages[:-DIGEST_BYTES] + footer
    if xxhash.xxh3_128_digest(parquet) != pages[-DIGEST_BYTES:]:
        raise ValueError("the digest does not fit")
    return parquet


def _parts(content: bytes) -> tuple[bytes, bytes]:
    """Pages and footer; the footer ends with its length in 4 bytes and the name of the format in 4 more."""
    length = int.from_bytes(content[-8:-4], "little") + 8
    return content[:-length], content[-length:]


def _shelves(space: Path) -> dict[int, int]:
    """The folders videos/<hh>/ with their mtimes."""
    try:
        with os.scandir(space / VIDEOS) as entries:
            return {
                int(entry.name, 16): entry.stat().st_mtime_ns
                for entry in entries
                if len(entry.name) == 2
                and set(entry.name) <= set("0123456789abcdef")
                and entry.is_dir(follow_symlinks=False)
            }
    except FileNotFoundError:
        return {}


def _clock_of(space: Path) -> int:
    """Now, by the clock that stamps the folders: that of a file server may be off."""
    try:
        with folder_handle(space, space / TMP) as handle:
            probe = name_beside(space / TMP / "clock", handle)
            write_file(probe, b"", "none", handle)
            now_ns = os.stat(probe.name, dir_fd=handle, follow_symlinks=False).st_mtime_ns
            os.unlink(probe.name, dir_fd=handle)
    except (OSError, CacheError):
        return time.time_ns()
    return now_ns


def _rescan(
    space: SpaceFolder, table: pa.Table, shelves: set[int], on_progress: Callable[[int], None]
) -> tuple[pa.Table, set[int]]:
    """The table with the rows of these shelves as they are on the disk; the same object where they are as they were. And the
    shelves with records that could not be read, which have to be looked at again."""
    is_listed = np.isin(table["shelf"].to_numpy(), sorted(shelves))
    listed = table.filter(pa.array(is_listed))
    known = {
        (shelf, name): (row, record_id)
        for row, (shelf, name, record_id) in enumerate(
            zip(*(listed[column].to_pylist() for column in ("shelf", "name", "record_id")), strict=True)
        )
    }
    kept, fresh = [], []
    for shelf in sorted(shelves):
        for name, record_id in _entries(space.path / VIDEOS / f"{shelf:02x}"):
            row, known_id = known.get((shelf, name), (-1, None))
            if record_id and record_id == known_id:
                kept.append(row)
            else:
                fresh.append(_read_row(space, shelf, name, record_id))
                on_progress(len(fresh))
    if not fresh and len(kept) == len(listed):
        return table, set()
    unread = {row["shelf"] for row in fresh if row["record_id"] == UNREAD}
    new = pa.Table.from_pylist(fresh, schema=SCHEMA)
    parts = [table.filter(pa.array(~is_listed)), listed.take(pa.array(kept, pa.int64())), new]
    return pa.concat_tables([part.cast(SCHEMA) for part in parts]).combine_chunks(), unread


def _entries(shelf: Path) -> Iterator[tuple[str, str]]:
    """Names of the video folders with what identifies the present record of each, empty where there is none."""
    try:
        with os.scandir(shelf) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(_SUFFIXES) and not entry.is_symlink()]
    except FileNotFoundError:
        return
    for name in sorted(names):
        try:
            stat = os.lstat(os.path.join(shelf, name, COMMIT_FILE))
        except OSError:
            yield name, ""
        else:
            yield name, f"{stat.st_ino}.{stat.st_mtime_ns}.{stat.st_size}"


def _read_row(space: SpaceFolder, shelf: int, name: str, record_id: str) -> dict[str, Any]:
    folder = space.path / VIDEOS / f"{shelf:02x}" / name
    try:
        record = read_record(CommitRecord, folder / COMMIT_FILE)
        problem = _misplaced(space.path, space.record, record, folder)
    except FileNotFoundError:
        problem = f"it has no {COMMIT_FILE}"
    except CacheError as error:
        problem = str(error).splitlines()[0]
    except OSError as error:
        if error.errno in REFUSED:
            raise
        problem, record_id = f"{folder / COMMIT_FILE} cannot be read: {error.strerror or error}", UNREAD
    if problem:
        empty: dict[str, Any] = {field.name: [] if pa.types.is_list(field.type) else 0 for field in SCHEMA}
        texts: dict[str, Any] = {field.name: "" for field in SCHEMA if pa.types.is_string(field.type)}
        location = {"shelf": shelf, "name": name, "record_id": record_id, "problem": problem}
        return {**empty, **texts, **location, "key": key_from_name(os.path.splitext(name)[0]) or ""}
    return record_row(record, shelf=shelf, name=name, record_id=record_id)


def _misplaced(space: Path, about: SpaceRecord, record: CommitRecord, folder: Path) -> str:
    if record.space != about.hash:
        return f"it was made for space {record.space[:12]}, not for {about.hash[:12]}"
    if video_folder(space, record.key, record.store) != folder:
        return f"it holds video {record.key!r}, which belongs elsewhere"
    if problem := commit_contradiction(record, about):
        return f"its record contradicts itself: {problem}"
    return ""


def _with_packed(space: SpaceFolder, table: pa.Table) -> pa.Table:
    """Own videos, then those of packs; an own video hides a packed one of the same key."""
    packed = packs.members(space.path)
    if packed is None:
        return table
    absent = {pa.string(): "", pa.int16(): -1}
    filled = [
        packed[field.name].cast(field.type)
        if field.name in packed.schema.names
        else pa.repeat(pa.scalar(absent.get(field.type), field.type), len(packed))
        for field in SCHEMA
    ]
    extra = pa.table(filled, schema=SCHEMA)
    own = set(table["key"].to_pylist())
    extra = extra.filter(pa.array([key not in own for key in extra["key"].to_pylist()], pa.bool_()))
    return pa.concat_tables([table, extra])
