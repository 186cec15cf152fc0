"""Files that survive a kill or a power cut: write beside the target, fsync, then give it its name.

Everything that the cache makes goes through here, so that there is one place to read when asking "and if it dies now?".
A rename is atomic, but only an fsync of the file before it and of the folder after it make it last.
"""

import json
import os
import re
import secrets
import shutil
import socket
import stat
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Literal

import xxhash

Durability = Literal["full", "none"]
"""full: survives a power cut. none: survives a kill of the process, for scratch disks; no fsync at all."""

UNNAMED = ".qle-"
"""How the names of files begin that are about to get their own."""

_DIGEST_FIELD = re.compile(rb'"digest"\s*:\s*"([^"]*)"\s*\}\s*\Z')
_OWNED = re.compile(r"\.([0-9a-f]{12})\.(\d+)\.(\d+)(?:\.tmp)?")
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


def write_file(path: Path, content: bytes, durability: Durability, dir_fd: int | None = None) -> None:
    """Write a new file in place; for files inside a folder that has no name yet.

    dir_fd: an open handle of the folder of the file, for places where the path to it might lead through a link.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | _own_file(dir_fd)
    fd = os.open(_name(path, dir_fd), flags, 0o666, dir_fd=dir_fd)
    try:
        write_at(fd, memoryview(content), 0)
        if durability == "full":
            os.fsync(fd)
    except OSError as error:  # of a handle, so without a name
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(fd)


def replace_file(path: Path, content: bytes, durability: Durability = "full", dir_fd: int | None = None) -> None:
    """Write a file so that its readers see the old bytes or the new ones, never a part. What the system keeps in /dev is written
    to and never replaced: a file in the place of /dev/null would break every other program. dir_fd: as in `write_file`."""
    if dir_fd is None and _is_device(path):
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)  # /dev/stdout may be a file that is added to
        try:
            _write_all(fd, content)
        finally:
            os.close(fd)
        return
    beside = name_beside(path, dir_fd)
    try:
        write_file(beside, content, durability, dir_fd)
        os.replace(_name(beside, dir_fd), _name(path, dir_fd), src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError as error:  # of the file beside, which nobody knows
        _unlink(beside, dir_fd)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        _unlink(beside, dir_fd)
        raise
    if dir_fd is None:
        sync_file(path.parent, durability)
    elif durability == "full":
        os.fsync(dir_fd)


def _is_device(path: Path) -> bool:
    """A device by itself (/dev/null), or one of the names under which a process finds its own streams (/dev/stdout)."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or (stat.S_ISLNK(mode) and str(path.parent.absolute()) in ("/dev", "/dev/fd"))


def _write_all(fd: int, content: bytes) -> None:
    """write until nothing is left: a pipe takes a part at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]


def publish_once(path: Path, content: bytes, durability: Durability = "full") -> bool:
    """Write a file unless it is there already; of many that try at once exactly one wins and gets True."""
    beside = name_beside(path)
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


def name_beside(path: Path, dir_fd: int | None = None) -> Path:
    """A name in the folder of a file for its new content, until that is whole. What killed processes of this machine have left
    beside the same file goes first. dir_fd: as in `write_file`."""
    begin = f"{UNNAMED}{path.name[:60]}."
    remove_unnamed(path.parent, begin, dir_fd)
    return path.with_name(owned_name(begin, ".tmp"))


def remove_unnamed(folder: Path, begin: str = UNNAMED, dir_fd: int | None = None) -> None:
    """Delete the files of a folder that killed processes of this machine were about to name, whose names begin so."""
    with suppress(OSError):  # no such folder yet
        for name in os.listdir(folder if dir_fd is None else dir_fd):
            if name.startswith(begin) and name.endswith(".tmp") and is_orphaned(name):
                _unlink(folder / name, dir_fd)


def append_line(path: Path, line: str, dir_fd: int | None = None) -> None:
    """Append one line by one write, which O_APPEND keeps whole among many writers; a torn last line stays apart.

    dir_fd: as in `write_file`. A link in place of the file is never followed.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(_name(path, dir_fd), flags, 0o666, dir_fd=dir_fd)
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


def with_digest(record: str) -> bytes:
    """The text of a JSON object with one more field at its end: a digest of every byte before the name of that field.

    Of the bytes and not of the values, so that a reader in any language can check it before it parses anything.
    """
    body = record.rstrip().removesuffix("}").rstrip()  # no record is empty
    covered = (body + (",\n " if "\n" in body else ",")).encode()
    return covered + f'"digest":"{xxhash.xxh3_128_hexdigest(covered)}"}}'.encode()


def fits_digest(record: bytes) -> bool:
    """Whether the text of a JSON object is as it was written; True of an older one, which carries no digest."""
    match = _DIGEST_FIELD.search(record)
    return match is None or match[1] == xxhash.xxh3_128_hexdigest(record[: match.start()]).encode()


def remove_tree(path: Path) -> None:
    """Delete a folder that someone else may be deleting too."""
    shutil.rmtree(path, ignore_errors=True)


def _name(path: Path, dir_fd: int | None) -> str | Path:
    """What a file is called for a system call: by its path, or by its name inside the folder of a handle."""
    return path if dir_fd is None else path.name


def _own_file(dir_fd: int | None) -> int:
    """A flag more for files below a handle: a link in their place is not followed."""
    return 0 if dir_fd is None else os.O_NOFOLLOW


def _unlink(path: Path, dir_fd: int | None) -> None:
    with suppress(FileNotFoundError):
        os.unlink(_name(path, dir_fd), dir_fd=dir_fd)


def owned_name(prefix: str, suffix: str = "") -> str:
    """A new name that tells which process gave it, so that others can see when nobody is behind it any more."""
    pid = os.getpid()
    return f"{prefix}{secrets.token_hex(6)}.{_scope()}.{pid}.{process_start(pid)}{suffix}"


def is_orphaned(name: str) -> bool:
    """Whether a name that `owned_name` gave is that of a process of this machine which has ended."""
    match = _OWNED.search(name)
    if match is None or match.end() != len(name):
        return False
    scope, pid, start = match.groups()
    return scope == _scope() and process_start(int(pid)) != int(start)


def names_this_process(name: str) -> bool:
    """Whether `owned_name` gave a name in this process."""
    pid = os.getpid()
    return name.endswith(f".{_scope()}.{pid}.{process_start(pid)}")


@lru_cache(maxsize=1)
def machine() -> str:
    """The scope in which a process id means something: host, boot and process namespace."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:  # no Linux: the host alone, and start 0 keeps anything from being proved dead
        pass
    return json.dumps(parts)


@lru_cache(maxsize=1)
def _scope() -> str:
    return xxhash.xxh3_64_hexdigest(machine().encode())[:12]


def process_start(pid: int) -> int:
    """Start time of a process in clock ticks since boot; -1 when there is none, 0 where it cannot be known."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return -1 if Path("/proc/self/stat").exists() else 0
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return -1 if fields[0] in "ZX" else int(fields[19])
