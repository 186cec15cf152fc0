"""What a user sees: results on stdout, everything else on stderr. The only file that imports rich.

Values enter, text leaves; nothing is computed here but units and rates. Written so that output survives a pipe that closes
(`| head`), a terminal that is not UTF-8, and no terminal at all, where tables are as wide as they need to be and progress is
a plain line every ten seconds. rich is imported inside the functions: `qle --help` should not pay for it.
"""

import contextlib
import errno
import io
import json
import logging
import os
import re
import sys
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TextIO

from qle.errors import QleError
from qle.outputs import TURNING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

    from qle.cli.checks import Check
    from qle.extract.progress import Progress
    from qle.train.progress import TrainStatus

BROKEN_PIPE_EXIT = 141
"""What a shell reports for a program that died of SIGPIPE, as `cat | head` does."""

INTERRUPTED_EXIT = 130
"""Likewise for SIGINT."""

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

_REFUSALS = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})

RECENT_S = 30.0
"""Rates look back so far: one over the whole run would hide that it has just become slow."""

_UNLIMITED_WIDTH = 10_000
_CONTROL = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{TURNING}]")
_CONTROL_OF_JSON = re.compile(rf"[\x7f-\x9f{TURNING}]")
_STYLES = {
    "ok": "green",
    "warn": "yellow",
    "fail": "bold red",
    "done": "green",
    "stale": "yellow",
    "damaged": "bold red",
}


def run(app: Callable[[], Any]) -> NoReturn:
    """Call a command line and end the process: expected errors become their message and exit code, the rest is a bug."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no reason to die
    _escape_what_others_print()
    try:
        app()
    except QleError as error:
        show_error(error)
        code: Any = error.exit_code
    except OSError as error:
        if error.errno not in _CONDITIONS:
            raise
        show_error(_condition_error(error))
        # Where stderr is full, this is what becomes of the message about a wrong option, which has a code of its own.
        code = getattr(error.__context__, "exit_code", QleError.exit_code)
    except (MemoryError, RuntimeError) as error:
        shortage = _shortage(error)
        if shortage is None:
            raise
        show_error(shortage)
        code = QleError.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED_EXIT
    except SystemExit as end:
        # No command ends with 1: so ends the library of the command line when nobody reads its help any more.
        code = BROKEN_PIPE_EXIT if end.code == 1 else end.code
    else:
        code = 0
    if code == INTERRUPTED_EXIT:  # also where the command line's library has turned the interrupt into its exit
        note("interrupted")
    sys.exit(_flush_stdout(code))


def _escape_what_others_print() -> None:
    """Warnings of libraries, of our own modules below the command line, and tracebacks go to stderr past this file, and they too
    may hold a name: from here on they are escaped as everything else."""
    if logging.lastResort is not None:  # what is logged without a handler, as it is by everything in qle
        logging.lastResort.setFormatter(_VisibleFormatter())
    warnings.showwarning = lambda message, category, filename, lineno, file=None, line=None: note(
        warnings.formatwarning(message, category, filename, lineno, line).rstrip()
    )
    sys.excepthook = lambda kind, error, trace: note("".join(traceback.format_exception(kind, error, trace)).rstrip())


class _VisibleFormatter(logging.Formatter):
    """A line of a log without what a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _flush_stdout(code: Any) -> Any:
    """The code to end with once the result is out, or could not be put out."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        return BROKEN_PIPE_EXIT
    except OSError as error:
        if error.errno not in _CONDITIONS:
            raise
        _drop_stdout()
        if not code:  # else it has been told
            show_error(_condition_error(error))
            return QleError.exit_code
    return code


def _condition_error(error: OSError) -> QleError:
    # Of a rename the second name is the one that the user knows.
    path = next((str(name) for name in (error.filename2, error.filename) if isinstance(name, str | os.PathLike)), "")
    where = path or ("the system refuses" if error.errno in _REFUSALS else "writing failed")
    return QleError(f"{where}: {error.strerror or error}\n{_CONDITIONS[error.errno or 0]}")


def _shortage(error: BaseException) -> QleError | None:
    """What the machine does not have: memory or threads. torch and Python say so by errors of no kind of their own."""
    text = str(error).strip()
    if "can't start new thread" in text:
        return QleError(
            f"{text}: this machine gives no more\nraise the limit of processes (ulimit -u), or end other programs"
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text:
        asked = re.search(r"(?:you tried to|Tried to) allocate ([\d.]+ \w+)", text)
        size = f": {asked[1]} were asked for at once" if asked else ""
        return QleError(
            f"the memory does not suffice{size}\nask for less at a time: smaller sizes, --batch, or fewer processes"
        )
    return None


def show_error(error: QleError) -> None:
    """The message as it is: our errors say what, where and what to run next; a traceback would only hide that."""
    _write_stderr(_render(visible(f"error: {error}"), sys.stderr, style="bold red" if sys.stderr.isatty() else None))


def note(message: str) -> None:
    """One line beside the result."""
    _write_stderr(visible(message) + "\n")


def print_json(value: Any) -> None:
    """A result for programs: strict JSON (no NaN), text as it is where the output can hold it. What a terminal would obey is
    written as JSON escapes, which read back as the same text."""
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    text = json.dumps(value, indent=2, ensure_ascii=not is_unicode, allow_nan=False, default=str)
    _write_stdout(_CONTROL_OF_JSON.sub(_json_escape, text) + "\n")


def print_text(text: str) -> None:
    """A line of a result."""
    _write_stdout(_render(visible(text), sys.stdout))


def print_plain(text: str) -> None:
    """A result that is text in a format of its own: not a character is wrapped or styled, nor escaped but on a terminal."""
    _write_stdout(visible(text) if sys.stdout.isatty() else text)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """A table on stdout. Columns whose name begins with "#" hold numbers and are set to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(
        title=None if title is None else visible(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for column in columns:
        is_number = column.startswith("#")
        drawn.add_column(column.lstrip("#"), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        # Text, not str: a key may hold "[red]", which must not become markup.
        drawn.add_row(*(Text(_cell(value), style=_STYLES.get(str(value), "")) for value in row))
    _write_stdout(_render(drawn, sys.stdout))


def facts(pairs: Mapping[str, object], *, title: str | None = None) -> None:
    """Names and values below each other."""
    width = max(map(len, pairs), default=0)
    lines = [_cell(f"{name:<{width}}  {value}") for name, value in pairs.items()]
    _write_stdout(_render("\n".join(([_cell(title)] if title else []) + lines), sys.stdout))


def show_checks(checks: Iterable["Check"]) -> None:
    """One line a check, and below it the fix where it falls short."""
    from rich.text import Text

    checks = list(checks)
    width = max((len(check.name) for check in checks), default=0)
    text = Text()
    for check in checks:
        text.append(f"{check.status:<5}", style=_STYLES[check.status])
        text.append(visible(f"{check.name:<{width}}  {check.found}\n"))
        if check.fix:
            text.append(visible(f"{'':<{width + 7}}fix: {check.fix}\n"), style="dim" if sys.stdout.isatty() else "")
    _write_stdout(_render(text, sys.stdout, end=""))


def visible(text: str) -> str:
    """Text with `\\x1b` in place of the byte that begins a command to the terminal, and the like for every other control
    character but line ends and tabs, and for those that turn the direction of text. Names of files, keys and queries come from
    strangers: shown raw they could colour, hide, reorder or rewrite what stands on the screen. Every function of this file that
    prints a line goes through here."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}" if ord(match[0]) < 256 else _json_escape(match), text)


def _json_escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _cell(value: object) -> str:
    """What stands in one line: a line end in a name must not make a second one of it."""
    return visible(str(value).replace("\n", "\\n"))


def format_bytes(size: float) -> str:
    """1234567 -> "1.23 MB": decimal units, as disks are sold, three digits."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < 999.5:
            return f"{size:.0f} B" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} PB"


def format_duration(seconds: float) -> str:
    """75 -> "1 min 15 s": the two largest units that matter."""
    if seconds < 0 or seconds != seconds or seconds == float("inf"):
        return "unknown"
    if seconds < 10:
        return f"{seconds:.1f} s"
    rest = round(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if parts:
            return f"{parts[0]} {count} {unit}" if count else parts[0]
        if count:
            parts.append(f"{count} {unit}")
    return parts[0]


def format_count(count: float) -> str:
    """1234567 -> "1,234,567"."""
    return f"{count:,.0f}"


class _StatusLine:
    """One line on stderr that keeps changing on a terminal, and elsewhere is printed anew every `interval_s`."""

    def __init__(self, *, is_quiet: bool, interval_s: float, clock: Callable[[], float]) -> None:
        self.is_quiet = is_quiet
        self._is_live = not is_quiet and sys.stderr.isatty()
        self._refresh_s = 0.2 if self._is_live else interval_s
        self._clock = clock
        self._next_s = float("-inf")
        self._live: Live | None = None
        self._last = ""

    def start(self) -> None:
        if self._is_live:
            from rich.live import Live

            self._live = Live(console=_console(sys.stderr), auto_refresh=False, transient=True)
            self._live.start()

    def stop(self, last: str) -> None:
        """`last` stays on the screen where lines are printed, unless it stands there already."""
        if self._live is not None:
            self._live.stop()
        elif last and last != self._last and not self.is_quiet:
            note(last)

    def show(self, line: Callable[[], str]) -> None:
        """Called as often as you like; the line is only made when it is time for one."""
        if self.is_quiet or self._clock() < self._next_s:
            return
        self._next_s = self._clock() + self._refresh_s
        self._last = line()
        if self._live is None:
            note(self._last)
        else:
            from rich.text import Text

            self._live.update(Text(visible(self._last)), refresh=True)

    def note(self, text: str) -> None:
        """A line that stays."""
        if self._live is not None:
            self._live.console.print(visible(text), markup=False, highlight=False)
        elif not self.is_quiet:
            note(text)


class StepProgress:
    """Progress of a tool that calls back with (done, total, what it is at)."""

    def __init__(self, verb: str, *, is_bytes: bool = False, is_quiet: bool = False, interval_s: float = 10.0) -> None:
        self._verb, self._format = verb, format_bytes if is_bytes else format_count
        self._status = _StatusLine(is_quiet=is_quiet, interval_s=interval_s, clock=time.monotonic)
        self._started_s = time.monotonic()

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop("")

    def update(self, done: int, total: int, what: str) -> None:
        self._status.show(lambda: self._line(done, total, what))

    def _line(self, done: int, total: int, what: str) -> str:
        elapsed_s = time.monotonic() - self._started_s
        left = f"  ETA {format_duration(elapsed_s / done * (total - done))}" if done and elapsed_s > 1 else ""
        return f"{self._verb} {self._format(done)}/{self._format(total)}{left}  {_cell(what)}"


class _Rate:
    """How fast a count has grown over the last RECENT_S seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._recent: deque[tuple[float, int]] = deque()

    def add(self, count: int) -> None:
        now_s = self._clock()
        self._recent.append((now_s, count))
        while len(self._recent) > 2 and now_s - self._recent[0][0] > RECENT_S:
            self._recent.popleft()

    def clear(self) -> None:
        self._recent.clear()

    @property
    def per_s(self) -> float:
        """0 while there is nothing to measure."""
        if len(self._recent) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._recent[0], self._recent[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0


class ExtractProgress:
    """Shows snapshots of a run on a status line, and each of its notes once."""

    def __init__(
        self, *, is_quiet: bool = False, interval_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._status = _StatusLine(is_quiet=is_quiet, interval_s=interval_s, clock=clock)
        self._rows = _Rate(clock)
        self._seen: set[str] = set()
        self._last: Progress | None = None

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop(self.line(self._last) if self._last is not None else "")

    def update(self, progress: "Progress") -> None:
        """Take a snapshot of all workers together; cheap, call it as often as you like."""
        self._last = progress
        self._rows.add(progress.rows_done)
        for text in progress.notes:
            if text not in self._seen:
                self._seen.add(text)
                self._status.note(text)
        self._status.show(lambda: self.line(progress))

    @property
    def rows_per_s(self) -> float:
        return self._rows.per_s

    def line(self, progress: "Progress") -> str:
        """`12/80 videos (1 failed)  5,310/6,000 rows  212 rows/s  decode-bound  ETA 3 min 5 s`."""
        of_all = f"/{format_count(progress.videos_total)}" if progress.videos_total else ""
        parts = [f"{format_count(progress.videos_done)}{of_all} videos"]
        if progress.videos_failed:
            parts.append(f"{format_count(progress.videos_failed)} failed")
        if progress.videos_contested:
            parts.append(f"{format_count(progress.videos_contested)} with others")
        parts.append(f"{format_count(progress.rows_done)}/{format_count(progress.rows_planned)} rows")
        if rate := self.rows_per_s:
            parts += [f"{rate:,.0f} rows/s", f"{progress.binding}-bound"]
            if left := self._rows_left(progress):
                parts.append(f"ETA {format_duration(left / rate)}")
        return "  ".join(parts)

    def _rows_left(self, progress: "Progress") -> float:
        """Rows of videos that nobody has opened are counted as the mean of those that somebody has."""
        opened = max(progress.videos_opened, progress.videos_done + progress.videos_failed, 1)
        unopened = max(progress.videos_total - opened, 0)
        return max(progress.rows_planned - progress.rows_done, 0) + unopened * progress.rows_planned / opened


class TrainProgress:
    """Shows snapshots of a training on a status line, and each of its notes once."""

    def __init__(
        self, *, is_quiet: bool = False, interval_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._status = _StatusLine(is_quiet=is_quiet, interval_s=interval_s, clock=clock)
        self._clock = clock
        self._last: dict[str, TrainStatus] = {}
        """By run; several where seeds are trained at the same time."""
        self._steps: dict[str, _Rate] = {}

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop(self._lines())

    def note(self, text: str) -> None:
        """A line that stays."""
        self._status.note(text)

    def update(self, status: "TrainStatus") -> None:
        """Cheap, call it after every step."""
        if status.note:
            self._status.note(f"{status.run}: {status.note}" if status.run else status.note)
        if not status.has_company:  # the next of several seeds begins anew
            self._last = {run: last for run, last in self._last.items() if run == status.run}
        elif status.is_over:
            self._last.pop(status.run, None)
            return
        if status.run not in self._last:
            self._steps[status.run] = _Rate(self._clock)
        self._last[status.run] = status
        self._steps[status.run].add(status.step)
        self._status.show(self._lines)

    def _lines(self) -> str:
        """One run with all that is known; of several the least."""
        statuses = list(self._last.values())
        if len(statuses) < 2:
            return "".join(map(self.line, statuses))
        return "  |  ".join(map(self._short_line, statuses))

    def _short_line(self, status: "TrainStatus") -> str:
        """`seed-0 120/300 AUROC 0.871`."""
        score = "" if status.best_score is None else f" {status.score_label} {status.best_score:.3f}"
        return f"{status.run} {format_count(status.step)}/{format_count(status.num_steps)}{score}"

    def line(self, status: "TrainStatus") -> str:
        """`seed-0  step 120/300  epoch 4/10  loss 0.412  val AUROC 0.871 (best 0.902)  2.1 steps/s  ETA 1 min 26 s`."""
        parts = [status.run] if status.run else []
        parts += [
            f"step {format_count(status.step)}/{format_count(status.num_steps)}",
            f"epoch {status.epoch}/{status.num_epochs}",
        ]
        if status.loss is not None:
            parts.append(f"loss {status.loss:.3g}")
        if status.score is not None and status.best_score is not None:
            parts.append(f"val {status.score_label} {status.score:.3f} (best {status.best_score:.3f})")
        if rate := self._steps[status.run].per_s:  # validations included
            left_s = (status.num_steps - status.step) / rate
            parts += [f"{rate:.2g} steps/s", f"ETA {format_duration(left_s)}"]
        return "  ".join(parts)


def _console(stream: TextIO) -> "Console":
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False)


class _Double(io.StringIO):
    """Looks like a stream and keeps what is written: rich writes and flushes even where it only renders, and where the stream
    is full or closed that would fail in the middle of a message."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding or "utf-8"

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


def _render(content: Any, stream: TextIO, *, style: str | None = None, end: str = "\n") -> str:
    """What rich would print there; on a pipe without wrapping, since a program or a pager reads it."""
    double = _Double(stream)
    console = _console(double)
    if not console.is_terminal:
        console.width = _UNLIMITED_WIDTH
    console.print(content, style=style, end=end)
    return "\n".join(line.rstrip() for line in double.getvalue().split("\n"))


def _write_stdout(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        raise SystemExit(BROKEN_PIPE_EXIT) from None


def _write_stderr(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):  # nobody listens, or a disk is full; the work goes on
        pass


def _drop_stdout() -> None:
    """Keep the interpreter from flushing into the closed pipe once more when it ends."""
    with contextlib.suppress(OSError, ValueError):  # stdout is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
