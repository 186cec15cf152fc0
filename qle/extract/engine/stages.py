"""The two threads behind the engine's loop: forward (on the device) and write (to disk), joined by short queues.

    engine --Batch--> ForwardStage --Tokens--> WriteStage --Outcome--> engine

Queues are bounded, so a slow disk slows the forward pass, that slows the loop, and that the decoders: memory stays flat.
Rows are written by the one write thread; hashing, fsync and rename of a complete video run beside it.
"""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

from qle.cache.records import CommitRecord
from qle.errors import CacheError, DecodeError, QleError
from qle.extract.engine.assembly import Batch
from qle.extract.engine.job import JobTarget, out_of_memory
from qle.extract.engine.mailbox import CancelledError, Mailbox
from qle.extract.target import Target
from qle.extract.tokens import finite_rows, to_numpy, to_stored

Work = TypeVar("Work")


@dataclass(frozen=True, slots=True)
class Tokens:
    """One batch on its way to disk."""

    target: Target
    clips: list[tuple[JobTarget, int]]
    values: dict[str, torch.Tensor]
    is_finite: torch.Tensor
    ready: "torch.cuda.Event | None"
    """Set by the device when the copies to the host are complete."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one video ended for one backbone."""

    job_target: JobTarget
    record: CommitRecord | None
    error: DecodeError | None = None
    """Neither: another process has taken the video over."""


@dataclass(slots=True)
class Clock:
    """Where the time of the threads of a stage goes."""

    busy_s: float = 0.0
    waiting_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, waiting_s: float, busy_s: float) -> None:
        with self._lock:
            self.waiting_s += waiting_s
            self.busy_s += busy_s


def _serve(
    inbox: Mailbox[Work], work: Callable[[Work], None], clock: Clock, on_crash: Callable[[BaseException], None]
) -> None:
    """The life of a thread of a stage: takes, works, until the box is finished or cancelled."""
    try:
        while True:
            started_s = time.perf_counter()
            item = inbox.get()
            got_s = time.perf_counter()
            if item is None:
                return
            work(item)
            clock.add(got_s - started_s, time.perf_counter() - got_s)
    except CancelledError:
        return
    except BaseException as error:  # noqa: BLE001 - handed to the loop, which ends the run with it
        on_crash(error)


def _is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


class ForwardStage:
    """Runs batches through frozen backbones, on one or more lanes.

    On a CPU there are as many lanes as cores with one thread each: lanes never wait for one another, whereas one pass over
    all cores waits at every layer for the core that a decoder has just borrowed.
    """

    def __init__(
        self,
        sink: "Mailbox[Tokens]",
        num_lanes: int,
        on_outcome: Callable[[Outcome], None],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self.inbox: Mailbox[tuple[Target, Batch[JobTarget]]] = Mailbox(num_lanes + 1)
        self.clock = Clock()
        self.notes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._sink = sink
        self._on_outcome = on_outcome
        self._has_passed: set[Target] = set()
        """Those for which memory has sufficed at least once."""
        self._clips_per_pass: dict[Target, int] = {}
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(
                target=_serve, args=(self.inbox, self._run, self.clock, on_crash), name=f"forward-{lane}", daemon=True
            )
            for lane in range(num_lanes)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the lanes once they have done what was put before."""
        self.inbox.finish()
        self.join()

    def cancel(self) -> None:
        """Drops what waits. A pass that has begun goes on to its end: `join` waits for it."""
        self.inbox.cancel()

    def join(self) -> None:
        # An interpreter that ends while a thread is inside a pass aborts the process.
        for thread in self._threads:
            thread.join()

    def _run(self, work: tuple[Target, Batch[JobTarget]]) -> None:
        try:
            with _current(work[0].backbone.device):
                tokens = self._forward(*work)
        except (MemoryError, RuntimeError) as error:  # for what lies around the passes
            if not _is_out_of_memory(error):
                raise
            for job_target, _ in _by_owner(work[1].clips):
                self._on_outcome(ended_by(MemoryError(str(error)), job_target))
            return
        if tokens is not None:
            self._sink.put(tokens)

    def _forward(self, target: Target, batch: Batch[JobTarget]) -> Tokens | None:
        """The tokens of a batch, without the clips for which there was no memory; None where that holds for all."""
        device = target.backbone.device
        parts, clips = [], []
        start = 0
        while start < len(batch.clips):
            size = self._clips_per_pass.get(target, len(batch.frames))
            try:
                parts.append(self._pass(target, batch.frames[start : start + size]))
            except (MemoryError, RuntimeError) as error:
                if not self._halve(target, size, error):
                    continue
                self._on_outcome(ended_by(MemoryError(str(error)), batch.clips[start][0]))
            else:
                self._has_passed.add(target)
                clips += batch.clips[start : start + size]
            start += size
        if not parts:
            return None
        values = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        is_finite = finite_rows(values)
        if device.type != "cuda":
            return Tokens(target, clips, {name: value.cpu() for name, value in values.items()}, is_finite.cpu(), None)
        host = {name: _to_pinned(value) for name, value in values.items()}
        finite = _to_pinned(is_finite)
        ready = torch.cuda.Event()
        ready.record()
        return Tokens(target, clips, host, finite, ready)

    def _pass(self, target: Target, frames: np.ndarray) -> dict[str, torch.Tensor]:
        with torch.inference_mode():
            return to_stored(target.backbone.encode(torch.from_numpy(frames)), target.streams)

    def _halve(self, target: Target, size: int, error: MemoryError | RuntimeError) -> bool:
        """Makes passes smaller after one that was too large for the memory. Whether nothing smaller is left to try, for a clip
        as others that did fit: then its video fails. Where none ever did, the run ends."""
        if not _is_out_of_memory(error):
            raise error
        if size <= 1 and target in self._has_passed:
            return True
        if size <= 1:
            raise QleError(
                f"{target.backbone.name}: not even one clip of {target.backbone.context.length} frames fits in memory.\n"
                "Use a device with more memory, --context single, or a smaller --image-size."
            ) from error
        with self._lock:
            self._clips_per_pass[target] = size // 2
        if target.backbone.device.type == "cuda":
            torch.cuda.empty_cache()
        self.notes.put(f"{target.backbone.name}: out of memory with {size} clips in a pass, going on with {size // 2}")
        return False


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Makes this thread one of its device. Events, pinned memory and compiled kernels belong to the current card, which in a
    new thread is always the first: on the second, `Tokens.ready` would not wait for its copies."""
    if device.type == "cpu":
        torch.set_num_threads(1)  # of this thread only: the other cores are those of other lanes and processes
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _to_pinned(values: torch.Tensor) -> torch.Tensor:
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)


class WriteStage:
    """Places rows in the files of their videos, and commits a video when its last row is there."""

    def __init__(self, on_outcome: Callable[[Outcome], None], on_crash: Callable[[BaseException], None]) -> None:
        self.inbox: Mailbox[Tokens] = Mailbox(3)
        self.clock = Clock()
        self.rows_done = 0
        self._on_outcome = on_outcome
        self._on_crash = on_crash
        self._committer = ThreadPoolExecutor(max_workers=2, thread_name_prefix="commit")
        self._thread = threading.Thread(
            target=_serve, args=(self.inbox, self._write, self.clock, on_crash), name="write", daemon=True
        )
        self._thread.start()

    def commit(self, job_target: JobTarget) -> None:
        """Publishes a video whose rows are all there."""
        self._committer.submit(self._commit, job_target)

    def close(self) -> None:
        """Ends when all that was put is on disk and committed."""
        self.inbox.finish()
        self.join()

    def cancel(self) -> None:
        """Drops what waits. A commit that has begun goes on to its end: `join` waits for it."""
        self.inbox.cancel()

    def join(self) -> None:
        self._thread.join()
        self._committer.shutdown()

    def _write(self, tokens: Tokens) -> None:
        if tokens.ready is not None:
            tokens.ready.synchronize()
        values = {name: to_numpy(value) for name, value in tokens.values.items()}
        values = {name: value.reshape(-1, *value.shape[2:]) for name, value in values.items()}
        is_finite = tokens.is_finite.numpy().reshape(-1)
        length = tokens.target.backbone.context.length
        for job_target, slots in _by_owner(tokens.clips):
            if job_target.is_closed:
                continue
            plan = job_target.assembler.plan
            rows = np.concatenate([np.arange(plan.kept(clip).start, plan.kept(clip).stop) for _, clip in slots])
            token_rows = np.concatenate(
                [
                    np.arange(plan.kept(clip).start, plan.kept(clip).stop) - plan.start(clip) + slot * length
                    for slot, clip in slots
                ]
            )
            try:
                job_target.write(rows, token_rows, values, is_finite)
            except (DecodeError, CacheError, MemoryError) as error:
                self._on_outcome(ended_by(error, job_target))
                continue
            self.rows_done += len(rows)
            if job_target.is_complete:
                self.commit(job_target)

    def _commit(self, job_target: JobTarget) -> None:
        try:
            self._on_outcome(_committed(job_target))
        except CancelledError:
            return
        except BaseException as error:  # noqa: BLE001 - handed to the loop, which ends the run with it
            self._on_crash(error)


def _committed(job_target: JobTarget) -> Outcome:
    try:
        return Outcome(job_target, job_target.commit())
    except (DecodeError, CacheError, MemoryError) as error:
        return ended_by(error, job_target)


def ended_by(error: DecodeError | CacheError | MemoryError, job_target: JobTarget) -> Outcome:
    """A video that cannot be stored fails; one that was taken over is left to its new owner; all else ends the run."""
    if isinstance(error, MemoryError):
        error = out_of_memory(job_target.job.source, error)
    if isinstance(error, CacheError) and not job_target.is_taken_over:
        raise error
    job_target.close()
    return Outcome(job_target, None, error if isinstance(error, DecodeError) else None)


def _by_owner(clips: list[tuple[JobTarget, int]]) -> list[tuple[JobTarget, list[tuple[int, int]]]]:
    """Slots of a batch grouped by video: [(job target, [(slot, clip), ...]), ...]."""
    grouped: dict[int, tuple[JobTarget, list[tuple[int, int]]]] = {}
    for slot, (job_target, clip) in enumerate(clips):
        grouped.setdefault(id(job_target), (job_target, []))[1].append((slot, clip))
    return list(grouped.values())
