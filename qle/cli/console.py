"""What a user sees: results on stdout, everything else on stderr. The only file that imports rich.

Values enter, text leaves; nothing is computed here but units. Written so that output survives a pipe that closes (`| head`), a
terminal that is not UTF-8, and no terminal at all, where tables are as wide as they need to be and a changing line is a plain
line every ten seconds. rich is imported inside the functions: `qle --help` should not pay for it.
"""

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from qle.errors import QleError
from qle.outputs import TURNING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

    from qle.cli.checks import Check

BROKEN_PIPE_EXIT = 141
"""What a shell reports for a program that died of SIGPIPE, as `cat | head` does."""

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
        drawn.add_row(*(Text(cell(value), style=_STYLES.get(str(value), "")) for value in row))
    _write_stdout(_render(drawn, sys.stdout))


def facts(pairs: Mapping[str, object], *, title: str | None = None) -> None:
    """Names and values below each other."""
    width = max(map(len, pairs), default=0)
    lines = [cell(f"{name:<{width}}  {value}") for name, value in pairs.items()]
    _write_stdout(_render("\n".join(([cell(title)] if title else []) + lines), sys.stdout))


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


def cell(value: object) -> str:
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


class StatusLine:
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
        drop_stdout()
        raise SystemExit(BROKEN_PIPE_EXIT) from None


def _write_stderr(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):  # nobody listens, or a disk is full; the work goes on
        pass


def drop_stdout() -> None:
    """Keep the interpreter from flushing into the closed pipe once more when it ends."""
    with contextlib.suppress(OSError, ValueError):  # stdout is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
