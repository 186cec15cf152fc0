"""The temp folder of one attempt at one video, and what a later attempt may keep of it.

    tmp/<16 hex of the key>.<host>.<pid>.<random>/
        _ATTEMPT.json      what is being made; an attempt that makes the same may be continued
        _SHARDS.jsonl      one line for each file that is complete, closed and (durability "full") on the disk
        _DAMAGED.jsonl     ranges of rows whose frame the decoder called damaged; noted before the rows are written
        video/             becomes the video's folder by one rename

Continuing is a rename of the whole folder to a new name: of two that try, one wins, and a former owner that was only
frozen finds its paths gone instead of writing into ours. Complete files are closed, so nobody holds a handle to them; the
rest is deleted and made again. Every kept file is hashed first, so whatever a power cut left is not taken on trust.
"""

import json
import os
import secrets
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import xxhash
from pydantic import ValidationError

from qle.cache.handles import folder_handle, make_folder, open_file, remove, rename
from qle.cache.layout import TMP, key_hash
from qle.cache.records import FileRecord, Record, Text, is_same_source
from qle.durable import (
    Durability,
    append_line,
    hash_file,
    machine,
    owned_name,
    process_start,
    replace_file,
    write_file,
)
from qle.errors import CacheError
from qle.inputs import parse_json, read_record_bytes
from qle.types import RowPlan, SourceFingerprint, StoreKind

ATTEMPT_FILE = "_ATTEMPT.json"
JOURNAL_FILE = "_SHARDS.jsonl"
NEW = "new-"
"""Begins the name of a folder that cannot say yet what it is for."""
DAMAGE_FILE = "_DAMAGED.jsonl"
RELEASED = ".released"
"""Ends the name of a folder that its owner has given up."""


class AttemptRecord(Record):
    """_ATTEMPT.json: what an attempt makes, and who makes it."""

    key: str
    space: str
    store: StoreKind
    fingerprint: SourceFingerprint
    plan: str
    """Hash of the row plan."""
    owner: Text
    """Host, boot and process namespace: inside it `pid` and `pid_start` name one process for ever."""
    pid: int
    pid_start: int

    def makes_same(self, other: Self) -> bool:
        """Rows of the one are rows of the other, to the bit."""
        return (self.key, self.space, self.store, self.plan) == (
            other.key,
            other.space,
            other.store,
            other.plan,
        ) and is_same_source(self.fingerprint, other.fingerprint)

    def is_owner_dead(self) -> bool:
        """Only what this machine can prove; the owner of another machine counts as alive."""
        return self.is_local and process_start(self.pid) != self.pid_start

    @property
    def is_local(self) -> bool:
        """Whether this machine can say if the owner lives."""
        return self.owner == machine()


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A temp folder that belongs to this process."""

    path: Path
    durability: Durability
    kept: dict[str, FileRecord]
    """Files of an earlier attempt that are complete, by path within the video."""

    @property
    def video(self) -> Path:
        return self.path / "video"

    @property
    def space(self) -> Path:
        """The folder that holds tmp/."""
        return self.path.parent.parent

    def log(self, file: FileRecord) -> None:
        """Note that a file is complete. Opened by name each time: a folder that was taken from us must not be found."""
        fd = open_file(self.space, self.path / JOURNAL_FILE, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, file.model_dump_json().encode() + b"\n")
        finally:
            os.close(fd)

    def note_damaged(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Note rows that are made of damaged frames, before they can become part of a complete file."""
        with folder_handle(self.space, self.path) as handle:
            for first, stop in ranges:
                append_line(self.path / DAMAGE_FILE, json.dumps([first, stop]), handle)

    def damaged(self) -> list[tuple[int, int]]:
        """What this attempt and the ones that it continues have noted."""
        try:
            lines = read_record_bytes(self.path / DAMAGE_FILE, follow_links=False).splitlines()
        except FileNotFoundError:
            return []
        ranges = []
        for line in lines:
            with suppress(ValueError):  # torn by a kill: then its rows are in no complete file
                first, stop = parse_json(line)
                ranges.append((int(first), int(stop)))
        return ranges

    def remove(self) -> None:
        remove_attempt(self.path)


def describe(*, key: str, space: str, store: StoreKind, fingerprint: SourceFingerprint, rows: RowPlan) -> AttemptRecord:
    """What this process is about to make."""
    digest = xxhash.xxh3_128()
    for array in (rows.frame_index, rows.pts_s, rows.is_valid):
        digest.update(array.tobytes())
    return AttemptRecord(
        key=key,
        space=space,
        store=store,
        fingerprint=fingerprint,
        plan=digest.hexdigest(),
        owner=machine(),
        pid=os.getpid(),
        pid_start=process_start(os.getpid()),
    )


def begin(space: Path, record: AttemptRecord, *, durability: Durability, has_claim: bool) -> Attempt:
    """A temp folder for this process: the best abandoned one that makes the same, or a new one; the others go away."""
    own = space / TMP / _new_name(record.key)
    usable: list[tuple[int, Path]] = []
    for path, earlier in _attempts(space, record.key):
        if has_claim or is_abandoned(path):
            is_same = earlier is not None and earlier.makes_same(record) and record.store == "zarr"
            usable.append((len(_journal(path)) if is_same else 0, path))
    usable.sort(reverse=True)
    kept = _adopt(usable[0][1], own, record) if usable and usable[0][0] else {}
    for _, path in usable:
        remove_attempt(path)
    if not kept:
        remove_attempt(own)
        _create(own, record)
    return Attempt(path=own, durability=durability, kept=kept)


def is_abandoned(path: Path) -> bool:
    """Whether nobody works in a temp folder any more, as far as this machine can prove it."""
    if path.name.endswith(RELEASED):
        return True
    if (record := read_attempt(path)) is not None:
        return record.is_owner_dead()
    # It gets its name with the owner's inside, so an empty one is what a kill left of its removal.
    return path.is_dir() and not any(path.iterdir())


def num_finished(path: Path) -> int:
    """Files of a temp folder that the next attempt at the same rows would not make again."""
    return len(_journal(path))


def release(attempt: Attempt) -> None:
    """Leave the folder to whoever comes next, though this process lives on. A rename, since a full disk takes no more."""
    with suppress(OSError):  # taken over, or a disk that is read-only by now: it counts when this process has ended
        rename(attempt.space, attempt.path, attempt.path.with_name(attempt.path.name + RELEASED))


def remove_attempt(path: Path) -> None:
    """Delete a temp folder, the name of its owner last: a kill in between leaves one that can still be proved dead."""
    space = path.parent.parent
    try:
        if not path.is_symlink():  # one was made by a stranger: what it points to is not ours
            for name in os.listdir(path):
                if name != ATTEMPT_FILE:
                    remove(space, path / name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    remove(space, path)


def _create(own: Path, record: AttemptRecord) -> None:
    """A new folder that gets its name when it can say what it is for. Worth no fsync before the first complete file."""
    space, unnamed = own.parent.parent, own.with_name(owned_name(NEW))
    try:
        make_folder(space, unnamed / "video")
        with folder_handle(space, unnamed) as handle:
            write_file(unnamed / JOURNAL_FILE, b"", "none", handle)
            write_file(unnamed / ATTEMPT_FILE, record.to_json().encode(), "none", handle)
        rename(space, unnamed, own)
    except OSError as error:
        remove(space, unnamed)
        raise CacheError(
            f"cannot write into the cache at {own.parent.parent}: {error.strerror}\n"
            "Nothing is lost. Free space or fix the permissions, then run the same command again."
        ) from error


def _adopt(old: Path, own: Path, record: AttemptRecord) -> dict[str, FileRecord]:
    """Make an abandoned folder ours and drop whatever in it is not complete. Nothing where another was faster."""
    try:
        rename(own.parent.parent, old, own)
    except OSError:
        return {}
    try:
        return _take_over(own, record)
    except OSError as error:  # a disk that is still full must not cost the shards that are there
        rename(own.parent.parent, own, own.with_name(own.name + RELEASED))
        raise CacheError(
            f"cannot continue in {own.parent}: {error.strerror}\n"
            "Nothing is lost. Free space or fix the permissions, then run the same command again."
        ) from error


def _take_over(own: Path, record: AttemptRecord) -> dict[str, FileRecord]:
    space, video = own.parent.parent, own / "video"
    with folder_handle(space, own) as handle:
        replace_file(own / ATTEMPT_FILE, record.to_json().encode(), "none", handle)  # at no moment without an owner
    if video.is_symlink():
        return {}
    kept = {file.path: file for file in _journal(own) if _is_intact(video, file)}
    for folder, folders, names in os.walk(video):
        for name in [*names, *(name for name in folders if os.path.islink(os.path.join(folder, name)))]:
            path = Path(folder, name)
            if str(path.relative_to(video)) not in kept:
                remove(space, path)
    for moved_aside in own.glob("replaced*"):
        remove(space, moved_aside)
    # The journal may end in a torn line; written anew it holds just what was kept.
    lines = (file.model_dump_json() + "\n" for file in kept.values())
    with folder_handle(space, own) as handle:
        replace_file(own / JOURNAL_FILE, "".join(lines).encode(), "none", handle)
    return kept


def _is_intact(video: Path, file: FileRecord) -> bool:
    path = video / file.path
    try:
        is_own = path.resolve() == video.resolve() / file.path and path.is_file()
        return is_own and hash_file(path) == file.xxh3
    except OSError:
        return False


def _attempts(space: Path, key: str) -> Iterator[tuple[Path, AttemptRecord | None]]:
    """Every temp folder of a key, with what it makes."""
    for path in sorted((space / TMP).glob(f"{key_hash(key)[:16]}.*")):
        if not path.is_symlink():
            yield path, read_attempt(path)


def read_attempt(path: Path) -> AttemptRecord | None:
    """None where it is broken or gone."""
    try:
        return AttemptRecord.model_validate_json(read_record_bytes(path / ATTEMPT_FILE, follow_links=False))
    except (OSError, ValidationError):
        return None


def _journal(path: Path) -> list[FileRecord]:
    files = []
    try:
        lines = read_record_bytes(path / JOURNAL_FILE, follow_links=False).splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            files.append(FileRecord.model_validate_json(line))
        except ValidationError:  # torn by the kill
            continue
    return files


def _new_name(key: str) -> str:
    host = "".join(c if c.isascii() and c.isalnum() else "-" for c in socket.gethostname())[:40]
    return f"{key_hash(key)[:16]}.{host}.{os.getpid()}.{secrets.token_hex(4)}"
