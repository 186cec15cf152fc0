"""The decode processes, seen from the engine: submit tasks, wait for events, and no crash, hang or leak comes through.

    with DecodePool(4, frame_bytes=...) as pool:
        pool.submit(task)
        for event in pool.wait(1.0): ...        Probed, Frames, Finished, Failed

Each worker has a pipe, and a ring of anonymous shared memory handed over as a file descriptor: it has no name, so nothing is left
behind in /dev/shm whoever gets killed. Nothing is shared between workers. One that crashes, stands still with room to write, or
grows too large is killed and replaced, and its task alone fails.
"""

import logging
import time
from multiprocessing.connection import wait
from typing import Self

from qle.extract.decode.process import WorkerProcess
from qle.extract.decode.tasks import DecodeTask, Event, Failed, ProbeTask, Ring, bytes_per_row

log = logging.getLogger(__name__)

CHECK_S = 0.5
"""Between looks at the health of all workers."""
START_LIMIT_S = 60.0
"""For a new process to be up: a busy machine or a slow disk is no hang."""
MAX_DEAD_STARTS = 3
"""Workers in a row that may be killed before they are up; more is not bad luck."""


class DecodePool:
    """A fixed number of decode processes. All methods belong to one thread."""

    def __init__(
        self,
        num_workers: int,
        *,
        frame_bytes: int,
        rows_per_slot: int = 8,
        num_slots: int = 4,
        stall_limit_s: float = 120.0,
        memory_limit_bytes: int = 4 << 30,
    ) -> None:
        self._ring = Ring(num_slots=num_slots, rows_per_slot=rows_per_slot, frame_bytes=frame_bytes)
        self._stall_limit_s = stall_limit_s
        self._memory_limit_bytes = memory_limit_bytes
        self._workers = [WorkerProcess(self._ring) for _ in range(num_workers)]
        self._num_dead_starts = 0
        self._next_check_s = time.monotonic() + CHECK_S

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def num_idle(self) -> int:
        """Workers that would begin a task at once."""
        return sum(worker.task is None for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self._workers]

    def submit(self, task: ProbeTask | DecodeTask) -> None:
        """Gives the task to an idle worker; there must be one."""
        if isinstance(task, DecodeTask) and bytes_per_row(task.geometries) > self._ring.frame_bytes:
            raise ValueError(
                f"a row takes {bytes_per_row(task.geometries)} bytes, the ring was made for {self._ring.frame_bytes}"
            )
        next(worker for worker in self._workers if worker.task is None).begin(task)

    def cancel(self, tag: int) -> None:
        """Stops a task soon; what it still gives up to its Finished or Failed may be ignored (but release its Frames)."""
        for worker in self._workers:
            if worker.task is not None and worker.task.tag == tag:
                worker.send(("cancel",))

    def wait(self, timeout_s: float) -> list[Event]:
        """Events in the order of each worker; an empty list when none came in time. Calls with short waits keep the watch."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            now_s = time.monotonic()
            pause_s = max(0.0, min(deadline_s, self._next_check_s) - now_s)
            ready = wait([worker.pipe for worker in self._workers], pause_s)
            events: list[Event] = []
            for worker in [worker for worker in self._workers if worker.pipe in ready]:
                events += self._read(worker)
            now_s = time.monotonic()
            if now_s >= self._next_check_s:
                self._next_check_s = now_s + CHECK_S
                for worker in list(self._workers):
                    events += self._examine(worker, now_s)
            if events or now_s >= deadline_s:
                return events

    def close(self) -> None:
        """Ends all workers at once; they hold nothing that could be lost."""
        for worker in self._workers:
            worker.end()
        self._workers = []

    def _read(self, worker: WorkerProcess) -> list[Event]:
        events: list[Event] = []
        try:
            while worker.pipe.poll():
                if (event := worker.receive()) is not None:
                    events.append(event)
        except (EOFError, OSError):
            events += self._bury(worker)
        except MemoryError as error:  # part of a message is still in the pipe
            events += self._bury(worker, "memory", f"not enough memory for its answer: {error or 'no more is given'}")
        if worker.is_up:
            self._num_dead_starts = 0
        return events

    def _examine(self, worker: WorkerProcess, now_s: float) -> list[Event]:
        if worker.process.poll() is not None:
            events = self._read(worker)  # what it said before it died comes first
            return events if worker not in self._workers else events + self._bury(worker)
        if worker.task is None:
            return []
        worker.look(now_s)
        still_s = now_s - worker.last_sign_s
        limit_s = self._stall_limit_s if worker.is_up else max(self._stall_limit_s, START_LIMIT_S)
        if still_s > limit_s:
            return self._bury(worker, "timeout", f"no sign of life from the decoder for {still_s:.0f} s")
        if (size := worker.private_bytes()) > self._memory_limit_bytes:
            limit = self._memory_limit_bytes >> 20
            return self._bury(worker, "memory", f"the decoder grew to {size >> 20} MiB, over the limit of {limit} MiB")
        return []

    def _bury(self, worker: WorkerProcess, kind: str = "crash", reason: str = "") -> list[Event]:
        """Replaces a worker that is dead or must die, and fails its task."""
        worker.end()
        if not worker.is_up:
            self._num_dead_starts += 1
            if worker.process.returncode > 0 or self._num_dead_starts > MAX_DEAD_STARTS:
                raise RuntimeError(f"decode processes do not start ({worker.exit_name}):\n{worker.last_words}")
        reason = reason or f"the decoder crashed ({worker.exit_name})"
        log.warning("decode process %d ended: %s", worker.process.pid, reason)
        self._workers[self._workers.index(worker)] = WorkerProcess(self._ring)
        return [] if worker.task is None else [Failed(tag=worker.task.tag, error=worker.failure(kind, reason))]
