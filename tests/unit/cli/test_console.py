"""What reaches stdout and stderr, on terminals, pipes, closed pipes and narrow encodings."""

import errno
import io
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from qle.cli import console
from qle.cli.checks import Check
from qle.errors import CacheMissingError, ConfigError
from qle.extract.progress import Progress


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234567, "1.23 MB"),
        (27e9, "27 GB"),
        (999_950, "1 MB"),
        (3e16, "30 PB"),
    ],
)
def test_bytes_have_three_digits(size: float, text: str) -> None:
    assert console.format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"), (9.94, "9.9 s"), (59, "59 s"), (75, "1 min 15 s"), (3600, "1 h"), (90061, "1 d 1 h"),
        (math.inf, "unknown"), (math.nan, "unknown"),
    ],
)  # fmt: skip
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert console.format_duration(seconds) == text


def test_table_on_a_pipe_is_not_cut_and_keeps_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    key = "ward [red]/" + "x" * 300 + ".mp4"
    console.table(["key", "#rows"], [(key, 12), ("b.mp4", 3000)])
    out = capsys.readouterr().out
    assert key in out
    assert "\x1b" not in out
    assert not any(line.endswith(" ") for line in out.splitlines())


def test_json_is_strict_and_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"rows": 3, "key": "m\u00fcller"})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"rows": 3, "key": "m\u00fcller"}
    assert captured.err == ""
    with pytest.raises(ValueError, match="not JSON compliant"):
        console.print_json(math.nan)


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
        console.run(app)
    captured = capsys.readouterr()
    assert end.value.code == code
    assert captured.out == ""
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(("number", "path"), [(errno.ENOSPC, None), (errno.EACCES, "/runs/a"), (errno.ENOTDIR, "/b/c")])
def test_what_the_disk_says_is_one_error(number: int, path: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    def app() -> None:
        raise OSError(number, os.strerror(number), path)

    with pytest.raises(SystemExit) as end:
        console.run(app)
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
            "error: the memory does not suffice: 25600000000 bytes were asked for at once",
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
        console.run(app)
    lines = capsys.readouterr().err.splitlines()
    assert (end.value.code, lines[0], len(lines)) == (3, said, 2)


def test_other_errors_of_the_system_keep_their_traceback() -> None:
    def app() -> None:
        raise OSError(errno.EBADF, "bad descriptor")

    with pytest.raises(OSError, match="bad descriptor"):
        console.run(app)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("buffered", ["console.print_text('a')", "print('a')"])
def test_a_result_that_finds_no_room_is_an_error(buffered: str) -> None:
    with open("/dev/full", "wb") as full:
        done = _python(f"from qle.cli import console\nconsole.run(lambda: {buffered})", stdout=full.fileno())
    assert done.returncode == 3
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_a_bug_keeps_its_traceback() -> None:
    def app() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        console.run(app)


def test_error_message_is_shown_whole_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_error(CacheMissingError("x" * 200 + "\nrun: qle cache verify [/bold]"))
    assert capsys.readouterr().err == "error: " + "x" * 200 + "\nrun: qle cache verify [/bold]\n"


def _python(code: str, stdout: int = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", code],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        check=False,
    )


def test_a_closed_pipe_ends_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    done = _python("from qle.cli import console\nconsole.run(lambda: console.table(['a'], [(1,)] * 9))", stdout=write)
    os.close(write)
    assert done.returncode == console.BROKEN_PIPE_EXIT
    assert done.stderr == b""


def test_a_narrow_encoding_escapes_what_it_cannot_show() -> None:
    done = _python(
        "from qle.cli import console\n"
        "console.run(lambda: (console.table(['key'], [('m\\u00fcller \\u4e2d.mp4',)]), console.print_json('\\u4e2d')))",
        PYTHONIOENCODING="ascii",
    )
    assert done.returncode == 0, done.stderr
    assert b"m\\xfcller \\u4e2d.mp4" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == "\u4e2d"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _progress(done: int, rows: int, notes: tuple[str, ...] = ()) -> Progress:
    return Progress(
        videos_total=10, videos_done=done, videos_opened=done + 1, rows_done=rows, rows_planned=100 * (done + 1),
        forward_busy_s=1, forward_waiting_s=9, notes=list(notes),
    )  # fmt: skip


def test_progress_without_a_terminal_is_a_line_every_interval(capsys: pytest.CaptureFixture[str]) -> None:
    now_s = 0.0
    with console.ExtractProgress(interval_s=10, clock=lambda: now_s) as progress:
        for done in range(5):  # at 0, 5, 10, 15 and 20 s
            now_s = 5.0 * done
            progress.update(_progress(done, 100 * done, notes=("batch halved",)))
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("batch halved") == 1
    assert len(lines) == 1 + 3  # the note, and lines at 0, 10 and 20 s
    assert lines[-1] == "4/10 videos  400/500 rows  20 rows/s  decode-bound  ETA 30 s"


def test_progress_rate_forgets_the_distant_past() -> None:
    now_s = 0.0
    progress = console.ExtractProgress(is_quiet=True, clock=lambda: now_s)
    for now_s, rows in ((0.0, 0), (100.0, 100_000), (110.0, 100_010)):  # noqa: B007  (the clock reads it)
        progress.update(_progress(1, rows))
    assert progress.rows_per_s == pytest.approx(1.0)


def test_quiet_progress_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with console.ExtractProgress(is_quiet=True) as progress:
        progress.update(_progress(1, 100, notes=("video b failed",)))
        progress.update(_progress(2, 200, notes=("video b failed",)))
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_redraws_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with console.ExtractProgress() as progress:
        progress.update(_progress(1, 100, notes=("video b failed",)))
    assert "1/10 videos" in terminal.getvalue()
    assert "video b failed" in terminal.getvalue()


def test_checks_show_the_fix_below_what_falls_short(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_checks(
        [
            Check(name="python", status="ok", found="3.11 [cpython]"),
            Check(name="open files", status="warn", found="512", fix="ulimit -n 8192"),
        ]
    )
    assert capsys.readouterr().out.splitlines() == [
        "ok   python      3.11 [cpython]",
        "warn open files  512",
        "                 fix: ulimit -n 8192",
    ]


def test_step_progress_is_one_line_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with console.StepProgress("verified", is_bytes=True) as progress:
        for done in range(1000):
            progress.update(done * 10**6, 10**9, "a.mp4")
    assert capsys.readouterr() == ("", "verified 0 B/1 GB  a.mp4\n")


COMMAND = "a\x1b[31m\x07\x9b2J\x7f\r.mp4"
"""A name that colours the terminal, rings its bell, clears it and goes back to the beginning of the line."""
SHOWN = r"a\x1b[31m\x07\x9b2J\x7f\x0d.mp4"


@pytest.mark.parametrize(
    "show",
    [
        console.note,
        console.print_text,
        lambda text: console.show_error(ConfigError(text)),
        lambda text: console.table(["key"], [(text,)], title=text),
        lambda text: console.facts({text: text}, title=text),
        lambda text: console.show_checks([Check(name=text, status="warn", found=text, fix=text)]),
        lambda text: console.StepProgress("verified").update(1, 2, text),
    ],
    ids=["note", "text", "error", "table", "facts", "checks", "progress"],
)
def test_no_name_gives_commands_to_the_terminal(
    show: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    show(COMMAND)
    out = "".join(capsys.readouterr())
    assert SHOWN in out
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", out)


def test_json_gives_no_commands_either_and_stays_exact(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({COMMAND: COMMAND})
    out = capsys.readouterr().out
    assert json.loads(out) == {COMMAND: COMMAND}
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out)


def test_a_format_of_its_own_is_escaped_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console.print_plain(f"{COMMAND}\n")
    assert capsys.readouterr().out == f"{COMMAND}\n"
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    console.print_plain(f"{COMMAND}\n")
    assert terminal.getvalue() == f"{SHOWN}\n"
