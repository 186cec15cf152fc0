"""The lines that show how a job gets on."""

import io
import sys

import pytest

from qle.cli.progress import ExtractProgress, StepProgress
from qle.extract.progress import Progress


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
    with ExtractProgress(interval_s=10, clock=lambda: now_s) as progress:
        for done in range(5):  # at 0, 5, 10, 15 and 20 s
            now_s = 5.0 * done
            progress.update(_progress(done, 100 * done, notes=("batch halved",)))
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("batch halved") == 1
    assert len(lines) == 1 + 3  # the note, and lines at 0, 10 and 20 s
    assert lines[-1] == "4/10 videos  400/500 rows  20 rows/s  decode-bound  ETA 30 s"


def test_progress_rate_forgets_the_distant_past() -> None:
    now_s = 0.0
    progress = ExtractProgress(is_quiet=True, clock=lambda: now_s)
    for now_s, rows in ((0.0, 0), (100.0, 100_000), (110.0, 100_010)):  # noqa: B007  (the clock reads it)
        progress.update(_progress(1, rows))
    assert progress.rows_per_s == pytest.approx(1.0)


def test_quiet_progress_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with ExtractProgress(is_quiet=True) as progress:
        progress.update(_progress(1, 100, notes=("video b failed",)))
        progress.update(_progress(2, 200, notes=("video b failed",)))
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_redraws_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with ExtractProgress() as progress:
        progress.update(_progress(1, 100, notes=("video b failed",)))
    assert "1/10 videos" in terminal.getvalue()
    assert "video b failed" in terminal.getvalue()


def test_step_progress_is_one_line_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with StepProgress("verified", is_bytes=True) as progress:
        for done in range(1000):
            progress.update(done * 10**6, 10**9, "a.mp4")
    assert capsys.readouterr() == ("", "verified 0 B/1 GB  a.mp4\n")
