"""Files that survive a kill or a power cut: write beside the target, fsync, then give it its name.

Everything that the cache makes goes through here, so that there is one place to read when asking "and if it dies now?".
A rename is atomic, but only an fsync of the file before it and of the folder after it make it last.
"""

import os
import secrets
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import xxhash

Durability = Literal["full", "none"]
"""full: survives a power cut. none: survives a kill of the process, for scratch disks; no fsync at all."""

_HASH_BLOCK = 1 << 20  # stays in the processor's cache: twice the speed of 16 MiB


def sync_file(path: Path, durability: Durability) -> None:
    """Put the bytes of a file, or the entries of a folder, on the disk."""
    if durability == "none":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Syncer:
    """fsyncs many files and folders behind the writer's back; `wait` returns when all are on the disk.

    At once and not in turn, because a file system settles all that wait with one commit of its journal: twenty small
    files of a video cost about as much as two.
    """

    def __init__(self, durability: Durability) -> None:
        self._durability: Durability = durability
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="fsync")
        self._waiting: list[Future[None]] = []

    def add(self, path: Path) -> None:
        """Begin to put a file, or the entries of a folder, on the disk."""
        if self._durability == "full":
            self._waiting.append(self._pool.submit(sync_file, path, self._durability))

    def wait(self) -> None:
        """Until everything added so far is on the disk; raises what went wrong."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.result()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def sync_tree(root: Path, durability: Durability = "full") -> None:
    """Put every file and every folder of a tree on the disk."""
    syncer = Syncer(durability)
    try:
        for folder, _, names in os.walk(root):
            for name in names:
                syncer.add(Path(folder, name))
            syncer.add(Path(folder))
        syncer.wait()
    finally:
        syncer.close()


def write_file(path: Path, content: bytes, durability: Durability) -> None:
    """Write a new file in place; for files inside a folder that has no name yet."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        write_at(fd, memoryview(content), 0)
        if durability == "full":
            os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, content: bytes, durability: Durability = "full") -> None:
    """Write a file so that its readers see the old bytes or the new ones, never a part."""
    beside = _temp_beside(path)
    try:
        write_file(beside, content, durability)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_file(path.parent, durability)


def publish_once(path: Path, content: bytes, durability: Durability = "full") -> bool:
    """Write a file unless it is there already; of many that try at once exactly one wins and gets True."""
    beside = _temp_beside(path)
    try:
        write_file(beside, content, durability)
        try:
            os.link(beside, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links: a rename, and the last of a race wins
            if path.exists():
                return False
            os.rename(beside, path)
    finally:  # also of a disk that took only half of it
        beside.unlink(missing_ok=True)
    sync_file(path.parent, durability)
    return True


def append_line(path: Path, line: str) -> None:
    """Append one line by one write, which O_APPEND keeps whole among many writers; a torn last line stays apart."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        size = os.fstat(fd).st_size
        is_torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        os.write(fd, b"\n" * is_torn + line.encode() + b"\n")
    finally:
        os.close(fd)


def write_at(fd: int, content: memoryview, offset: int) -> None:
    """pwrite until nothing is left: one call takes 2 GiB at most, and fewer on a disk that is nearly full."""
    while content:
        written = os.pwrite(fd, content, offset)
        content, offset = content[written:], offset + written


def hash_file(path: Path) -> str:
    """xxh3-128 of a file, in hex: 11 GB/s right after it was written, when the bytes are still in memory.

    Read and not mapped: a failing disk then gives an error, where a map would end the process.
    """
    digest = xxhash.xxh3_128()
    buffer = bytearray(min(_HASH_BLOCK, max(os.stat(path).st_size, 1)))
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
    return digest.hexdigest()


def remove_tree(path: Path) -> None:
    """Delete a folder that someone else may be deleting too."""
    shutil.rmtree(path, ignore_errors=True)


def _temp_beside(path: Path) -> Path:
    return path.with_name(f".qle-{path.name[:60]}.{secrets.token_hex(6)}.tmp")
