"""How the program ends: exit codes, messages of expected errors, pipes that close, disks that run full."""

import errno
import json
import os
import subprocess
import sys

import pytest

from qle.cli import console, ending
from qle.errors import CacheMissingError, ConfigError


@pytest.mark.parametrize(
    ("raised", "code"),
    [(ConfigError("bad flag"), 2), (CacheMissingError("no cache"), 3), (KeyboardInterrupt(), 130), (SystemExit(4), 4)],
)
def test_run_ends_with_the_code_of_the_error(
    raised: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def app() -> None:
        raise raised

    with pytest.raises(SystemExit) as end:
        ending.run(app)
    captured = capsys.readouterr()
    assert end.value.code == code
    assert captured.out == ""
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(("number", "path"), [(errno.ENOSPC, None), (errno.EACCES, "/runs/a"), (errno.ENOTDIR, "/b/c")])
def test_what_the_disk_says_is_one_error(number: int, path: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    def app() -> None:
        raise OSError(number, os.strerror(number), path)

    with pytest.raises(SystemExit) as end:
        ending.run(app)
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 3
    assert lines[0] == f"error: {path or 'writing failed'}: {os.strerror(number)}"
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "error: the memory does not suffice"),
        (
            RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 25600000000 bytes."
            ),
            "error: the memory does not suffice: 25.6 GB were asked for at once",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ..."),
            "error: the memory does not suffice: 20.00 GiB were asked for at once",
        ),
        (RuntimeError("can't start new thread"), "error: can't start new thread: this machine gives no more"),
        (OSError(errno.EMFILE, "Too many open files", "/a"), "error: /a: Too many open files"),
        (BlockingIOError(errno.EAGAIN, "no process"), "error: the system refuses: no process"),
    ],
    ids=["memory", "tensor", "card", "threads", "files", "processes"],
)
def test_what_the_machine_does_not_have_is_one_error(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def app() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        ending.run(app)
    lines = capsys.readouterr().err.splitlines()
    assert (end.value.code, lines[0], len(lines)) == (3, said, 2)


def test_other_errors_of_the_system_keep_their_traceback() -> None:
    def app() -> None:
        raise OSError(errno.EBADF, "bad descriptor")

    with pytest.raises(OSError, match="bad descriptor"):
        ending.run(app)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("buffered", ["console.print_text('a')", "print('a')"])
def test_a_result_that_finds_no_room_is_an_error(buffered: str) -> None:
    with open("/dev/full", "wb") as full:
        done = _python(f"from qle.cli import console, ending\nending.run(lambda: {buffered})", stdout=full.fileno())
    assert done.returncode == 3
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_a_bug_keeps_its_traceback() -> None:
    def app() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ending.run(app)


def _python(code: str, stdout: int = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", code],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.slow
def test_a_closed_pipe_ends_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    done = _python(
        "from qle.cli import console, ending\nending.run(lambda: console.table(['a'], [(1,)] * 9))", stdout=write
    )
    os.close(write)
    assert done.returncode == console.BROKEN_PIPE_EXIT
    assert done.stderr == b""


@pytest.mark.slow
def test_a_narrow_encoding_escapes_what_it_cannot_show() -> None:
    done = _python(
        "from qle.cli import console, ending\n"
        "ending.run(lambda: (console.table(['key'], [('m\\u00fcller \\u4e2d.mp4',)]), console.print_json('\\u4e2d')))",
        PYTHONIOENCODING="ascii",
    )
    assert done.returncode == 0, done.stderr
    assert b"m\\xfcller \\u4e2d.mp4" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == "\u4e2d"
