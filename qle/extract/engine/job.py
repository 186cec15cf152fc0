"""One video in flight: its probe, its rows, and for each backbone the clips and the writer that are still open."""

import threading
from collections import deque
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np

from qle.cache.records import PASSING, CommitRecord
from qle.cache.sources import fingerprint
from qle.cache.writer import VideoWriter
from qle.errors import DecodeError, InputError
from qle.extract.decode.tasks import DecodeTask
from qle.extract.engine.assembly import ClipAssembler
from qle.extract.engine.mailbox import CancelledError
from qle.extract.target import Target
from qle.types import Box, RowPlan, VideoInfo, VideoSource

VERSIONS = {package: version(package) for package in ("qle", "torch", "av")}


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """What is known of a video once it was probed."""

    info: VideoInfo
    rows: RowPlan
    content_box: Box | None


@dataclass(slots=True, eq=False)
class Job:
    """One video, from the work list to the last commit."""

    source: VideoSource
    targets: list[Target]
    """Those for which the outcome is not known yet."""
    is_replacing: bool
    """Whether a stale or damaged version is to be replaced."""
    opened: Opened | None = None
    parts: list["JobTarget"] = field(default_factory=list)
    tasks: deque[DecodeTask] = field(default_factory=deque)
    """Ranges that no decoder has taken yet."""
    tasks_running: int = 0
    """Probes and ranges in the hands of decoders."""
    is_failed: bool = False

    @property
    def is_decoding(self) -> bool:
        """Whether frames of it may still come that someone waits for."""
        return bool(self.targets) and (self.opened is None or bool(self.tasks) or self.tasks_running > 0)


class JobTarget:
    """One video for one backbone: places rows, and knows when the last one is there."""

    def __init__(
        self, job: Job, target: Target, opened: Opened, writer: VideoWriter, assembler: ClipAssembler, attempt: int
    ) -> None:
        self.job = job
        self.target = target
        self.assembler = assembler
        self.is_closed = False
        """Committed, or given up: further rows are dropped."""
        self._lock = threading.Lock()  # the loop may give a video up while the write thread is at it
        self._opened = opened
        self._writer = writer
        self._attempt = attempt
        self._missing = ~writer.is_done

    @property
    def num_missing(self) -> int:
        """Rows that are not on disk yet."""
        return int(self._missing.sum())

    @property
    def is_complete(self) -> bool:
        return self.num_missing == 0

    @property
    def is_taken_over(self) -> bool:
        """Whether another process is at this video now: this one stood still for so long that it seemed dead."""
        return self._writer.is_taken_over

    def note_damaged(self, rows: np.ndarray) -> None:
        """These rows are made of frames that the decoder calls damaged; to be said before their frames are used."""
        with self._lock:
            if not self.is_closed:
                self._writer.note_damaged(rows)

    def write(self, rows: np.ndarray, slots: np.ndarray, values: dict[str, np.ndarray], is_finite: np.ndarray) -> None:
        """Stores `values[slots]` as these rows. A row that cannot be stored fails the video: never NaN in a cache."""
        if not is_finite[slots].all():
            row = int(rows[np.flatnonzero(~is_finite[slots])[0]])
            raise DecodeError(
                f"{self.job.source.path}: row {row} ({self._opened.rows.pts_s[row]:.3f} s) has numbers that cannot be stored.\n"
                "Half floats end at 65504: try --dtype bfloat16 or float32, and check the weights.",
                kind="nonfinite",
            )
        is_run = slots[-1] - slots[0] == len(slots) - 1
        with self._lock:
            if self.is_closed:
                return
            for name, value in values.items():
                self._writer.write(name, rows, value[slots[0] : slots[-1] + 1] if is_run else value[slots])
            self._missing[rows] = False

    def commit(self) -> CommitRecord:
        """Publishes the video, unless the file changed while it was read."""
        self._check_source()
        with self._lock:
            if self.is_closed:
                raise CancelledError
            record = self._writer.commit(attempt=self._attempt, versions=VERSIONS)
            self.is_closed = True
            return record

    def _check_source(self) -> None:
        path = self.job.source.path
        try:
            is_same = fingerprint(path) == self._opened.info.fingerprint
        except InputError as error:
            raise DecodeError(f"{path} went away while it was read: {error}", kind=PASSING) from error
        if not is_same:
            raise DecodeError(
                f"{path} changed while it was read.\nWait until it is complete, then run again with --retry-failed.",
                kind="changed",
            )

    def close(self) -> None:
        """Leaves the video uncommitted; whole shards stay for the next attempt."""
        with self._lock:
            if not self.is_closed:
                self.is_closed = True
                self._writer.abandon(keep_shards=True)


def out_of_memory(source: VideoSource, error: MemoryError) -> DecodeError:
    """One video that needs more memory than there is costs itself alone."""
    return DecodeError(f"{source.path}: not enough memory for this video: {error or 'no more is given'}", kind="memory")
