"""Folders and files below a space, reached from handle to handle, so that no link there is followed.

    space + path of a folder below it -> an open handle of that folder, or CacheCorruptError that names the link

A cache may come from a stranger, or lie in a folder that others can write to. Looking at a path first and using it afterwards
would leave a moment in which somebody puts a link there. So everything that is written, renamed or deleted below a space is
reached from the handle of the space: each part of the way is opened without following links, and the last step takes the name
inside the handle of its folder. Whoever exchanges a folder meanwhile finds that we go on in the old one.

The folder of a cache and that of a space may be links: those the user has made.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qle.cache.layout import CONVERSIONS, TMP
from qle.errors import CacheCorruptError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LINK_ERRORS = (errno.ELOOP, errno.ENOTDIR)
"""What a system answers where a folder or file is opened without following links, and a link stands there."""


@contextmanager
def folder_handle(space: Path, folder: Path, *, make: bool = False) -> Iterator[int]:
    """The handle of a folder that is the space itself or lies below it. make: folders that are missing on the way are made."""
    anchor = _anchor(space)
    handle = os.open(anchor, _FOLDER)
    try:
        reached = anchor
        for part in folder.relative_to(anchor).parts:
            reached = reached / part
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=handle)
            inner = _open(part, _FOLDER, handle, reached)
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


def open_file(space: Path, path: Path, flags: int) -> int:
    """The handle of a file below a space, opened with the flags of `os.open`; a link in its place is not followed."""
    with folder_handle(space, path.parent) as parent:
        return _open(path.name, flags | os.O_CLOEXEC, parent, path)


def make_folder(space: Path, folder: Path) -> None:
    """Make a folder below a space, and those on the way to it, where they are missing."""
    with folder_handle(space, folder, make=True):
        pass


def rename(space: Path, source: Path, target: Path) -> None:
    """Give a file or folder below a space another name there, as os.rename does."""
    with folder_handle(space, source.parent) as old, folder_handle(space, target.parent) as new:
        os.rename(source.name, target.name, src_dir_fd=old, dst_dir_fd=new)


def remove(space: Path, path: Path) -> None:
    """Delete a file or a whole folder below a space, that somebody else may be deleting too; of a link the link alone."""
    try:
        with folder_handle(space, path.parent) as parent:
            try:
                os.unlink(path.name, dir_fd=parent)
            except (IsADirectoryError, PermissionError) as error:  # the second is what other systems say of a folder
                if not stat.S_ISDIR(os.stat(path.name, dir_fd=parent, follow_symlinks=False).st_mode):
                    raise OSError(error.errno, error.strerror, str(path)) from error
                shutil.rmtree(path.name, ignore_errors=True, dir_fd=parent)
    except FileNotFoundError:
        return


def refuse_links(*paths: Path) -> None:
    """CacheCorruptError for the first of these paths that is a link; for those who only read, and go by paths."""
    for path in paths:
        if path.is_symlink():
            raise _link_error(path)


def refuse_links_below(folder: Path) -> None:
    """CacheCorruptError for any link in a folder; before it is given to a library that opens files by paths of its own."""
    refuse_links(folder)
    for parent, folders, names in os.walk(folder):
        refuse_links(*(Path(parent, name) for name in (*folders, *names)))


def _open(name: str, flags: int, parent: int, path: Path) -> int:
    try:
        return os.open(name, flags | os.O_NOFOLLOW, 0o666, dir_fd=parent)
    except OSError as error:
        if error.errno in _LINK_ERRORS and path.is_symlink():
            raise _link_error(path) from error
        raise OSError(error.errno, error.strerror, str(path)) from error


def _link_error(path: Path) -> CacheCorruptError:
    try:
        target = f" to {os.readlink(path)}"
    except OSError:  # it has gone since
        target = ""
    return CacheCorruptError(
        f"{path} is a link{target}: qle follows none inside of a space\n"
        "take the link away, or put what it points to in its place"
    )


def _anchor(space: Path) -> Path:
    """Where links begin to be refused. The folder of a conversion is a space inside a space, below the real one."""
    return space.parent.parent if space.parent.name == TMP and space.name in CONVERSIONS else space
