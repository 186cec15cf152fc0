"""What reaches stdout and stderr, on terminals, pipes, closed pipes and narrow encodings."""

import io
import json
import math
import re
import sys
from collections.abc import Callable

import pytest

from qle.cli import console
from qle.cli.checks import Check
from qle.cli.progress import StepProgress
from qle.errors import CacheMissingError, ConfigError

COMMAND = "a\x1b[31m\x07\x9b2J\x7f\r.mp4"
"""A name that colours the terminal, rings its bell, clears it and goes back to the beginning of the line."""
SHOWN = r"a\x1b[31m\x07\x9b2J\x7f\x0d.mp4"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


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


def test_error_message_is_shown_whole_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_error(CacheMissingError("x" * 200 + "\nrun: qle cache verify [/bold]"))
    assert capsys.readouterr().err == "error: " + "x" * 200 + "\nrun: qle cache verify [/bold]\n"


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


@pytest.mark.parametrize(
    "show",
    [
        console.note,
        console.print_text,
        lambda text: console.show_error(ConfigError(text)),
        lambda text: console.table(["key"], [(text,)], title=text),
        lambda text: console.facts({text: text}, title=text),
        lambda text: console.show_checks([Check(name=text, status="warn", found=text, fix=text)]),
        lambda text: StepProgress("verified").update(1, 2, text),
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
