"""Does a file system keep the promises that the cache is built on? Each one is tried in a temp folder, which is removed.

Enters a folder (or the nearest one above it that exists), leaves one Trial a promise. Network and overlay file systems,
mounts of containers and user-space ones differ in just these points, and a lie about them shows only after a crash.
"""

import mmap
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import SoftFileLease, Timeout

from qle.durable import Durability, publish_once, replace_file, sync_file, write_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One promise, and what came of it."""

    name: str
    problem: str
    """Empty where it holds."""
    consequence: str
    """What it means for a cache there, and the way around."""
    is_fatal: bool


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    path = Path(os.path.abspath(path))
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def try_filesystem(folder: Path) -> list[Trial]:
    """Every promise in turn; a folder that cannot be written to ends the matter with one failed trial."""
    try:
        with tempfile.TemporaryDirectory(prefix=".qle-doctor-", dir=nearest_folder(folder)) as temp:
            return [_try(*promise, Path(temp)) for promise in _PROMISES]
    except OSError as error:
        return [
            Trial(
                name="write",
                problem=f"{folder} cannot be written to: {error.strerror}",
                consequence="choose another --cache folder, or get write permission; reading a cache needs none",
                is_fatal=True,
            )
        ]


def _try(name: str, trial: Callable[[Path], str], consequence: str, is_fatal: bool, temp: Path) -> Trial:
    folder = temp / name.replace(" ", "-")
    folder.mkdir()
    try:
        problem = trial(folder)
    except OSError as error:
        problem = f"{type(error).__name__}: {error.strerror or error}"
    return Trial(name=name, problem=problem, consequence=consequence, is_fatal=is_fatal)


def _rename(folder: Path) -> str:
    """A folder may take the name of nothing, never that of a folder with something in it; a file replaces a file."""
    for name in ("first", "second"):
        (folder / name).mkdir()
        write_file(folder / name / "record", name.encode(), "none")
    os.rename(folder / "first", folder / "video")
    try:
        os.rename(folder / "second", folder / "video")
    except OSError:
        pass
    else:
        return "a folder was renamed over another one that was not empty"
    replace_file(folder / "file", b"old", "none")
    replace_file(folder / "file", b"new", "none")
    kept = (folder / "video" / "record").read_bytes(), (folder / "file").read_bytes()
    return "" if kept == (b"first", b"new") else f"after renames the files hold {kept!r}"


def _fsync(folder: Path) -> str:
    durability: Durability = "full"
    write_file(folder / "file", b"x", durability)
    sync_file(folder, durability)
    return ""


def _links(folder: Path) -> str:
    if not publish_once(folder / "file", b"first") or publish_once(folder / "file", b"second"):
        return "two writers could both create one file"
    os.link(folder / "file", folder / "link")
    return "" if os.path.samefile(folder / "file", folder / "link") else "a hard link became a copy"


def _lease(folder: Path) -> str:
    holder = SoftFileLease(folder / "lease", lease_duration=30.0, thread_local=False)
    other = SoftFileLease(folder / "lease", lease_duration=30.0, thread_local=False)
    holder.acquire(blocking=False)
    try:
        other.acquire(blocking=False)
    except Timeout:
        return ""
    else:
        other.release()
        return "two holders could take one lease"
    finally:
        holder.release()


def _mmap(folder: Path) -> str:
    path = folder / "file"
    content = os.urandom(3 * mmap.PAGESIZE)
    write_file(path, content, "none")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        replace_file(path, b"replaced", "none")  # the map must keep the old bytes
        return "" if mapped[:] == content else "a map does not show what was written"


_PROMISES: tuple[tuple[str, Callable[[Path], str], str, bool], ...] = (
    ("rename", _rename, "a commit could overwrite another; keep the cache on a local or NFS folder", True),
    ("fsync", _fsync, "a power cut may damage what was reported as done; pass --no-fsync on scratch disks", True),
    ("hard links", _links, "qle cache merge and convert copy files instead; nothing else is lost", False),
    ("leases", _lease, "run one machine at a time on this folder: workers cannot see each other's claims", False),
    ("mmap", _mmap, "reading tokens needs mapped files; keep the cache on another file system", True),
)
