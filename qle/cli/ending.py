"""How the program ends: expected errors become their message and exit code, and what is not expected stays a traceback.

    the command line -> run -> the process ends, with the result out or a reason on stderr

What the system refuses (a full disk, a folder that may not be written, too little memory) is no bug of the program, wherever it
turns up: it is told like an expected error. A pipe that nobody reads any more ends the program quietly.
"""

import errno
import io
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from qle.cli import console
from qle.cli.console import BROKEN_PIPE_EXIT, drop_stdout
from qle.errors import REFUSED, QleError

INTERRUPTED_EXIT = 130
"""What a shell reports for a program that died of SIGINT."""

_CONDITIONS = {
    errno.ENOSPC: "free some space there, or write to another disk",
    errno.EDQUOT: "free some space there, or write to another disk",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EROFS: "name a place that can be written",
    errno.ENOTDIR: "a part of the path is a file: name a folder",
    errno.EISDIR: "that is a folder: name a file",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EFBIG: "raise the limit of the size of files (ulimit -f), or write to another disk",
    errno.EIO: "the disk or its connection fails: look at it, then run the same command again",
    errno.ESTALE: "the shared folder was mounted anew: run the same command again",
    errno.EMFILE: "raise the limit of open files: ulimit -n 8192",
    errno.EAGAIN: "this machine gives no more processes: raise the limit (ulimit -u), or end other programs",
    errno.ENOMEM: "this machine has no more memory to give: end other programs, or ask for less at a time",
    errno.ENFILE: "this machine has no more open files to give: end other programs, or raise fs.file-max",
}
"""What the user's system says, and what helps: no bugs, wherever they turn up. Other errors of the system keep a traceback."""


def run(app: Callable[[], Any]) -> NoReturn:
    """Call a command line and end the process: expected errors become their message and exit code, the rest is a bug."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no reason to die
    _escape_what_others_print()
    try:
        app()
    except QleError as error:
        console.show_error(error)
        code: Any = error.exit_code
    except OSError as error:
        if error.errno not in _CONDITIONS:
            raise
        console.show_error(_condition_error(error))
        # Where stderr is full, this is what becomes of the message about a wrong option, which has a code of its own.
        code = getattr(error.__context__, "exit_code", QleError.exit_code)
    except (MemoryError, RuntimeError) as error:
        shortage = _shortage(error)
        if shortage is None:
            raise
        console.show_error(shortage)
        code = QleError.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED_EXIT
    except SystemExit as end:
        # No command ends with 1: so ends the library of the command line when nobody reads its help any more.
        code = BROKEN_PIPE_EXIT if end.code == 1 else end.code
    else:
        code = 0
    if code == INTERRUPTED_EXIT:  # also where the command line's library has turned the interrupt into its exit
        console.note("interrupted")
    sys.exit(_flush_stdout(code))


def _escape_what_others_print() -> None:
    """Warnings of libraries, of our own modules below the command line, and tracebacks go to stderr past console.py, and they too
    may hold a name: from here on they are escaped as everything else."""
    if logging.lastResort is not None:  # what is logged without a handler, as it is by everything in qle
        logging.lastResort.setFormatter(_VisibleFormatter())
    warnings.showwarning = lambda message, category, filename, lineno, file=None, line=None: console.note(
        warnings.formatwarning(message, category, filename, lineno, line).rstrip()
    )
    sys.excepthook = lambda kind, error, trace: console.note(
        "".join(traceback.format_exception(kind, error, trace)).rstrip()
    )


class _VisibleFormatter(logging.Formatter):
    """A line of a log without what a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        return console.visible(super().format(record))


def _flush_stdout(code: Any) -> Any:
    """The code to end with once the result is out, or could not be put out."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        drop_stdout()
        return BROKEN_PIPE_EXIT
    except OSError as error:
        if error.errno not in _CONDITIONS:
            raise
        drop_stdout()
        if not code:  # else it has been told
            console.show_error(_condition_error(error))
            return QleError.exit_code
    return code


def _condition_error(error: OSError) -> QleError:
    # Of a rename the second name is the one that the user knows.
    path = next((str(name) for name in (error.filename2, error.filename) if isinstance(name, str | os.PathLike)), "")
    where = path or ("the system refuses" if error.errno in REFUSED else "writing failed")
    return QleError(f"{where}: {error.strerror or error}\n{_CONDITIONS[error.errno or 0]}")


def _in_units(size: str) -> str:
    """ "25600000000 bytes" -> "25.6 GB"; what torch says in units of its own stays as it is."""
    number, _, unit = size.partition(" ")
    return console.format_bytes(float(number)) if unit == "bytes" else size


def _shortage(error: BaseException) -> QleError | None:
    """What the machine does not have: memory or threads. torch and Python say so by errors of no kind of their own."""
    text = str(error).strip()
    if "can't start new thread" in text:
        return QleError(
            f"{text}: this machine gives no more\nraise the limit of processes (ulimit -u), or end other programs"
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text:
        asked = re.search(r"(?:you tried to|Tried to) allocate ([\d.]+ \w+)", text)
        size = f": {_in_units(asked[1])} were asked for at once" if asked else ""
        return QleError(
            f"the memory does not suffice{size}\nask for less at a time: smaller sizes, --batch, or fewer processes"
        )
    return None
