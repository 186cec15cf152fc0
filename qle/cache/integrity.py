"""Whether the files of a video are still what its commit record says: sizes (cheap, at every open) and hashes (`verify`).

zarr-python reads a shard that is missing as fill values and does not notice flipped bits; here both are errors.
A file of the right size with other content, say a shard copied from another video, only the hashes can tell.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qle.cache.packs import PackRecord
from qle.cache.records import CommitRecord, FileRecord, SpaceRecord
from qle.cache.spaces import read_commit
from qle.durable import hash_file
from qle.errors import REFUSED, CacheCorruptError, CacheError


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that differs from the record."""

    path: str
    kind: Literal["missing", "size", "content", "unread"]
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.path}: {self.kind}, got {self.got}, expected {self.expected}"


def find_damage(folder: Path, record: CommitRecord | PackRecord, *, deep: bool = False) -> list[Damage]:
    """Every file that is missing or has another size; deep: or other content."""
    damages = []
    linked = tuple(f"{name}/" for name in _folders(record) if os.path.islink(os.path.join(folder, name)))
    for file in record.files:
        path = os.path.join(folder, file.path)
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            damages.append(Damage(file.path, "missing", f"{file.size} bytes", "no file"))
            continue
        if not stat.S_ISREG(status.st_mode) or file.path.startswith(linked):
            damages.append(
                Damage(file.path, "missing", f"{file.size} bytes", "a link or no file, which nobody follows")
            )
            continue
        size = status.st_size
        if size != file.size:
            damages.append(Damage(file.path, "size", f"{file.size} bytes", f"{size} bytes"))
        elif deep and (damage := _content_damage(Path(path), file)):
            damages.append(damage)
    return damages


def _folders(record: CommitRecord | PackRecord) -> set[str]:
    """Every folder below that of the record which holds a file, or a folder that does."""
    folders: set[str] = set()
    for name in {os.path.dirname(file.path) for file in record.files}:
        while name and name not in folders:
            folders.add(name)
            name = os.path.dirname(name)
    return folders


def _content_damage(path: Path, file: FileRecord) -> Damage | None:
    """A sector that the disk cannot give back is damage too, and no reason to stop looking."""
    try:
        got = hash_file(path)
    except OSError as error:
        if error.errno in REFUSED:
            raise
        return Damage(file.path, "unread", f"xxh3 {file.xxh3}", str(error.strerror))
    return None if got == file.xxh3 else Damage(file.path, "content", f"xxh3 {file.xxh3}", f"xxh3 {got}")


def check_sizes(folder: Path, record: CommitRecord) -> None:
    """Raise for the first file that is missing, short or long."""
    _raise_first(folder, record, find_damage(folder, record))


def check_content(folder: Path, record: CommitRecord) -> None:
    """Raise for the first file that differs in any bit. Before tokens are written anew: new hashes would hide the damage."""
    _raise_first(folder, record, find_damage(folder, record, deep=True))


def _raise_first(folder: Path, record: CommitRecord, damages: list[Damage]) -> None:
    if damages:
        more = f" (and {len(damages) - 1} more files)" if len(damages) > 1 else ""
        raise CacheCorruptError(
            f"video {record.key!r} is damaged: {damages[0]}{more}\nin {folder}\n"
            "extract it again with the same qle extract command, which replaces damaged videos"
        )


def is_whole(folder: Path, key: str, space: SpaceRecord, *, deep: bool = False) -> bool:
    """Whether a reader would get the video from this folder; deep: and every bit of it as it was written."""
    try:
        (check_content if deep else check_sizes)(folder, read_commit(folder, key, space))
    except (CacheError, OSError):
        return False
    return True
