"""How progress is shown: snapshots of a running job enter, the text of a line leaves. The line itself is in console.py.

StepProgress      a tool that counts steps
ExtractProgress   an extraction, with rates and the part that it waits for
TrainProgress     a training, or several at the same time
"""

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from qle.cli.console import StatusLine, cell, format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from qle.extract.progress import Progress
    from qle.train.progress import TrainStatus

RECENT_S = 30.0
"""Rates look back so far: one over the whole run would hide that it has just become slow."""


class StepProgress:
    """Progress of a tool that calls back with (done, total, what it is at)."""

    def __init__(self, verb: str, *, is_bytes: bool = False, is_quiet: bool = False, interval_s: float = 10.0) -> None:
        self._verb, self._format = verb, format_bytes if is_bytes else format_count
        self._status = StatusLine(is_quiet=is_quiet, interval_s=interval_s, clock=time.monotonic)
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
        return f"{self._verb} {self._format(done)}/{self._format(total)}{left}  {cell(what)}"


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
        self._status = StatusLine(is_quiet=is_quiet, interval_s=interval_s, clock=clock)
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
        self._status = StatusLine(is_quiet=is_quiet, interval_s=interval_s, clock=clock)
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
