"""A space on disk, as its writers see it: made once by whoever comes first, then a folder of committed videos.

`create_space` enters with a SpaceSpec and leaves with a SpaceFolder; any number of processes on any number of machines
may call it at the same time with the same spec.
"""

import os
import re
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from qle.cache import packs
from qle.cache.files.quantise import SCALE
from qle.cache.handles import refuse_links
from qle.cache.layout import (
    CACHE_FILE,
    CLAIMS,
    COMMIT_FILE,
    ERRORS_FILE,
    RUNS,
    SPACE_FILE,
    STORE_SUFFIXES,
    TMP,
    VIDEOS,
    canonical_json,
    space_folder_name,
    space_hash,
    video_folder,
)
from qle.cache.plausible import commit_contradiction, space_contradiction
from qle.cache.records import CacheRecord, CommitRecord, ErrorRecord, SpaceRecord, check_space_hash, read_record
from qle.durable import append_line, publish_once
from qle.errors import CacheCorruptError, CacheError, CacheMismatchError, CacheMissingError, ConfigError
from qle.inputs import MOST_TEXT_BYTES, NotARecordError, read_record_bytes
from qle.types import TIME_STREAMS, SpaceSpec, Stream

_STREAM_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")


@dataclass(frozen=True, slots=True)
class ErrorLog:
    """errors.jsonl: what went wrong with which video, appended by any number of processes."""

    path: Path

    def append(self, record: ErrorRecord) -> None:
        append_line(self.path, record.to_json(indent=None))

    def read(self) -> list[ErrorRecord]:
        """In the order in which they were written."""
        try:
            content = read_record_bytes(self.path, MOST_TEXT_BYTES, follow_links=False)
        except (FileNotFoundError, NotARecordError):  # a help, not a truth: what is no file has nothing to say
            return []
        lines = content.decode("utf-8", "replace").split("\n")  # keys may hold U+2028 and the like
        return [record for line in lines if line and (record := ErrorRecord.from_line(line))]

    def latest(self) -> dict[str, ErrorRecord]:
        """The last failure of each key; a key that was committed later is listed all the same."""
        return {record.key: record for record in self.read()}

    def attempts(self) -> dict[str, int]:
        """How often each key has failed."""
        return dict(Counter(record.key for record in self.read()))


@dataclass(frozen=True, slots=True)
class SpaceFolder:
    """One space, by its folder and its record."""

    path: Path
    record: SpaceRecord

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Every array that a video of this space has, in the order in which they are stored."""
        return (*self.record.streams, *TIME_STREAMS)

    @property
    def errors(self) -> ErrorLog:
        return ErrorLog(self.path / ERRORS_FILE)

    def folder(self, key: str) -> Path | None:
        """Where the video stands by itself, or None while it is not committed, or only in a pack."""
        for store in (*STORE_SUFFIXES, "zarr"):  # again: it may have come from the second format to the first meanwhile
            folder = video_folder(self.path, key, store)
            if (folder / COMMIT_FILE).exists():
                refuse_links(folder.parent, folder)
                return folder
        return None

    def committed(self, key: str) -> CommitRecord | None:
        """The record of a committed video; whether its files are still as recorded is `integrity.py`'s to say."""
        located = self.locate(key)
        return None if located is None else located[1]

    def locate(self, key: str) -> tuple[Path, CommitRecord] | None:
        """The folder that holds a committed video's files, its own or a pack's, and its record."""
        folder = self.folder(key)
        return packs.find(self.path, key) if folder is None else (folder, read_commit(folder, key, self.record))


def read_commit(folder: Path, key: str, space: SpaceRecord) -> CommitRecord:
    """The record in a video's folder, checked to be the one that belongs there."""
    try:
        record = read_record(CommitRecord, folder / COMMIT_FILE)
    except FileNotFoundError:
        raise CacheMissingError(f"video {key!r} is not committed: no {COMMIT_FILE} in {folder}") from None
    if record.key != key:
        raise CacheMismatchError(f"{folder} holds video {record.key!r}, expected {key!r}; run: qle cache verify")
    if record.space != space.hash:
        raise CacheMismatchError(
            f"{folder} was made for space {record.space[:12]}, expected {space.name}-{space.hash[:12]}\n"
            "extract it again: its numbers mean something else"
        )
    if problem := commit_contradiction(record, space):
        raise CacheCorruptError(f"{folder / COMMIT_FILE} contradicts itself: {problem}\nrun: qle cache verify")
    return record


def create_space(root: Path, spec: SpaceSpec) -> SpaceFolder:
    """The folder of a space inside a cache; both are made where they are missing."""
    _check_spec(spec)
    try:
        _create_cache(root)
        path = root / space_folder_name(spec)
        for name in (VIDEOS, TMP, CLAIMS, RUNS):
            (path / name).mkdir(parents=True, exist_ok=True)
        publish_once(path / SPACE_FILE, _space_record(spec).to_json().encode())
    except OSError as error:
        raise CacheError(
            f"cannot create a cache space in {root}: {error.strerror}; choose another --cache folder"
        ) from error
    space = open_space(path)
    if space.record.hash != space_hash(spec.hashed) or space.record.streams != spec.streams:
        raise CacheMismatchError(
            f"{path} holds another space: its hash or streams differ from the ones asked for\n"
            f"got {space.record.hash[:16]}, expected {space_hash(spec.hashed)[:16]}"
        )
    return space


def open_space(path: Path) -> SpaceFolder:
    """A space that is there."""
    try:
        record = read_record(SpaceRecord, path / SPACE_FILE)
    except FileNotFoundError:
        raise CacheMissingError(f"{path} is no space of a cache: it has no {SPACE_FILE}") from None
    check_space_hash(record, path / SPACE_FILE)
    refuse_links(*map(Path, sorted(entry.path for entry in os.scandir(path) if entry.is_symlink())))
    for stream in record.streams:  # arrays get folders of these names
        if not _STREAM_NAME.fullmatch(stream.name):
            raise CacheCorruptError(f"{path / SPACE_FILE}: {stream.name!a} is no name of a stream; restore the file")
    if problem := space_contradiction(record):
        raise CacheCorruptError(f"{path / SPACE_FILE} contradicts itself: {problem}\nrestore the file from a copy")
    return SpaceFolder(path, record)


def read_cache_record(root: Path) -> CacheRecord:
    """qle-cache.json, or an error that says what the folder is instead."""
    try:
        return read_record(CacheRecord, root / CACHE_FILE)
    except (FileNotFoundError, NotADirectoryError):
        what = "is no cache" if root.exists() else "does not exist"
        hint = f"; it is a space inside one: open {root.parent}" if (root / SPACE_FILE).exists() else ""
        raise CacheMissingError(
            f"{root} {what} (no {CACHE_FILE}){hint}\nmake one with: qle extract --cache {root} ..."
        ) from None
    except OSError as error:
        raise CacheError(f"cannot read {root / CACHE_FILE}: {error.strerror}") from error


def _create_cache(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    if not (root / CACHE_FILE).exists():
        # Names that begin with ".qle-" are the files that another process is just about to name.
        strangers = [name for name in sorted(os.listdir(root)) if not name.startswith((".qle-", CACHE_FILE))]
        if strangers and not (root / CACHE_FILE).exists():
            raise CacheMismatchError(
                f"{root} is no cache and not empty (it holds {strangers[0]!r}); choose an empty or a new folder"
            )
        record = CacheRecord(uuid=str(uuid.uuid4()), created=datetime.now(UTC))
        publish_once(root / CACHE_FILE, record.to_json().encode())
    read_cache_record(root)


def _space_record(spec: SpaceSpec) -> SpaceRecord:
    canonical_json(spec.recorded)  # plain JSON too, though not hashed
    return SpaceRecord(
        name=spec.name,
        hash=space_hash(spec.hashed),
        hashed=dict(spec.hashed),
        streams=spec.streams,
        recorded=dict(spec.recorded),
        created=datetime.now(UTC),
    )


def _check_spec(spec: SpaceSpec) -> None:
    names = [stream.name for stream in (*spec.streams, *TIME_STREAMS)]
    if len(set(names)) < len(names) or not all(_STREAM_NAME.fullmatch(name) for name in names):
        raise ConfigError(f"stream names must differ and be lower-case words, got {', '.join(names)}")
    for stream in spec.streams:
        if stream.dtype == "int8" and (stream.name != "patch" or SCALE not in names):
            raise ConfigError(f"stream {stream.name!r} is int8: only `patch` may be, and it needs a stream {SCALE!r}")
