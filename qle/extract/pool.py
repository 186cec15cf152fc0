"""The decode processes, seen from the engine: submit tasks, wait for events, and no crash, hang or leak comes through.

    with DecodePool(4, frame_bytes=...) as pool:
        pool.submit(task)
        for event in pool.wait(1.0): ...        Probed, Frames, Finished, Failed

Each worker has a pipe, and a ring of anonymous shared memory handed over as a file descriptor: it has no name, so nothing is left
behind in /dev/shm whoever gets killed. Nothing is shared between workers. One that crashes, stands still with room to write, or
grows too large is killed and replaced, and its task alone fails.
"""

import json
import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from qle.errors import DecodeError
from qle.extract.decode import request_frames
from qle.extract.tasks import (
    DecodeTask,
    Event,
    Failed,
    Finished,
    Frames,
    Probed,
    ProbeTask,
    Ring,
    bytes_per_row,
)
from qle.extract.worker import Order

log = logging.getLogger(__name__)

CHECK_S = 0.5
"""Between looks at the health of all workers."""
MAX_DEAD_STARTS = 3
"""Workers in a row that may be killed before they are up; more is not bad luck."""
PAGE_BYTES = mmap.PAGESIZE

# One thread per worker is the unit that the pool counts in, so number libraries must not start their own.
BOOT = """
import json, os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
start = json.loads(sys.argv[1])
sys.path[:] = start.pop("path")
from qle.extract.tasks import Ring
from qle.extract.worker import main
main(start["pipe_fd"], start["memory_fd"], start["parent_pid"], Ring(**start["ring"]))
"""


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
        self._workers = [_Worker(self._ring) for _ in range(num_workers)]
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

    def _read(self, worker: "_Worker") -> list[Event]:
        events: list[Event] = []
        try:
            while worker.pipe.poll():
                if (event := worker.receive()) is not None:
                    events.append(event)
        except (EOFError, OSError):
            events += self._bury(worker)
        if worker.is_up:
            self._num_dead_starts = 0
        return events

    def _examine(self, worker: "_Worker", now_s: float) -> list[Event]:
        if worker.process.poll() is not None:
            return self._read(worker)  # what it said before it died comes first, then the end of the pipe
        if worker.task is None:
            return []
        worker.look(now_s)
        still_s = now_s - worker.last_sign_s
        if still_s > self._stall_limit_s:
            return self._bury(worker, "timeout", f"no sign of life from the decoder for {still_s:.0f} s")
        if (size := worker.private_bytes()) > self._memory_limit_bytes:
            limit = self._memory_limit_bytes >> 20
            return self._bury(worker, "memory", f"the decoder grew to {size >> 20} MiB, over the limit of {limit} MiB")
        return []

    def _bury(self, worker: "_Worker", kind: str = "crash", reason: str = "") -> list[Event]:
        """Replaces a worker that is dead or must die, and fails its task."""
        worker.end()
        if not worker.is_up:
            self._num_dead_starts += 1
            if worker.process.returncode > 0 or self._num_dead_starts > MAX_DEAD_STARTS:
                raise RuntimeError(
                    f"decode processes do not start (exit {worker.process.returncode}):\n{worker.last_words}"
                )
        reason = reason or f"the decoder crashed ({_exit_name(worker.process.returncode)})"
        log.warning("decode process %d ended: %s", worker.process.pid, reason)
        self._workers[self._workers.index(worker)] = _Worker(self._ring)
        return [] if worker.task is None else [Failed(tag=worker.task.tag, error=worker.failure(kind, reason))]


class _Worker:
    """One process with its pipe and ring, and what it is doing."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        memory_fd = _anonymous_memory(ring.size_bytes)
        self._memory = np.frombuffer(mmap.mmap(memory_fd, ring.size_bytes, access=mmap.ACCESS_READ), np.uint8)
        ours, theirs = socket.socketpair()
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the worker ends
        start = {
            "path": sys.path,
            "pipe_fd": theirs.fileno(),
            "memory_fd": memory_fd,
            "parent_pid": os.getpid(),
            "ring": {"num_slots": ring.num_slots, "rows_per_slot": ring.rows_per_slot, "frame_bytes": ring.frame_bytes},
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", BOOT, json.dumps(start)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            pass_fds=(theirs.fileno(), memory_fd),
        )
        theirs.close()
        os.close(memory_fd)
        self.pipe = Connection(ours.detach())
        self.task: ProbeTask | DecodeTask | None = None
        self.is_up = False
        self.last_words = ""
        self.last_sign_s = time.monotonic()
        self._num_beats = 0
        self._num_out = 0
        """Slots that the receiver holds."""
        self._last_frame = -1
        self._shapes: tuple[tuple[int, int], ...] = ()

    def begin(self, task: ProbeTask | DecodeTask) -> None:
        self.task = task
        self.last_sign_s = time.monotonic()
        self._last_frame = -1
        if isinstance(task, ProbeTask):
            self.send(("probe", task))
            return
        self._shapes = tuple(geometry.output_shape for geometry in task.geometries)
        order = Order(
            request=request_frames(task.info, task.frame_index),
            decoder=task.decoder,
            rows=task.rows,
            frame_index=task.frame_index,
            geometries=task.geometries,
            content_box=task.content_box,
        )
        self.send(("decode", order))

    def send(self, message: tuple[Any, ...]) -> None:
        """To a worker that may be dead: then the end of its pipe will tell."""
        try:
            self.pipe.send(message)
        except OSError as error:
            log.debug("decode process %d does not listen: %s", self.process.pid, error)

    def receive(self) -> Event | None:
        message = self.pipe.recv()
        self.last_sign_s = time.monotonic()
        match message:
            case ("ready",):
                self.is_up = True
                return None
            case ("frames", slot, rows):
                return self._frames(slot, rows)
            case ("probed", info, box):
                return Probed(tag=self._done(), info=info, content_box=box)
            case ("finished",):
                return Finished(tag=self._done())
            case ("failed", error):
                return Failed(tag=self._done(), error=error)
        raise RuntimeError(f"unknown message from a decode process: {message[0]!r}")

    def look(self, now_s: float) -> None:
        """Notes signs of life other than events. One that waits for a slot is not expected to give any."""
        num_beats = int(self._memory[:8].view(np.uint64)[0])
        if num_beats != self._num_beats or self._num_out == self._ring.num_slots:
            self._num_beats = num_beats
            self.last_sign_s = now_s

    def private_bytes(self) -> int:
        """Memory of this process alone; 0 where the system does not say."""
        try:
            resident, shared = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1:3]
        except OSError:
            return 0
        return (int(resident) - int(shared)) * PAGE_BYTES

    def failure(self, kind: str, reason: str) -> DecodeError:
        if isinstance(self.task, DecodeTask):
            path, num_frames = self.task.info.path, self.task.info.num_frames
            return DecodeError(
                f"{path}: {reason}, after frame {self._last_frame + 1} of {num_frames}",
                kind=kind,
                frames_decoded=self._last_frame + 1,
                frames_expected=num_frames,
            )
        path = self.task.source.path if self.task is not None else Path()
        return DecodeError(f"{path}: {reason}, while its packets were read", kind=kind)

    def end(self) -> None:
        """Kills the process and keeps the end of what it wrote before it was up."""
        self.process.kill()
        self.process.wait()
        self.pipe.close()
        self._stderr.seek(0)
        self.last_words = self._stderr.read()[-2000:].decode("utf-8", "replace")
        self._stderr.close()

    def _done(self) -> int:
        if self.task is None:
            raise RuntimeError("a decode process answered without a task")
        tag, self.task = self.task.tag, None
        return tag

    def _frames(self, slot: int, rows: np.ndarray) -> Frames:
        if not isinstance(self.task, DecodeTask):
            raise RuntimeError("a decode process sent frames without a task")
        self._num_out += 1
        last_row = int(np.searchsorted(self.task.rows, rows[-1]))
        self._last_frame = int(self.task.frame_index[last_row])
        views = self._ring.images(self._memory, slot, self._shapes)
        images = tuple(view[: len(rows)] for view in views)
        return Frames(tag=self.task.tag, rows=rows, images=images, release=lambda: self._release(slot))

    def _release(self, slot: int) -> None:
        if self._num_out == self._ring.num_slots:
            self.last_sign_s = time.monotonic()  # from now on it can go on
        self._num_out -= 1
        if not self.pipe.closed:
            self.send(("release", slot))


def _anonymous_memory(size_bytes: int) -> int:
    """A file descriptor of shared memory that has no name and goes with its last user."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("qle-frames", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size_bytes)
    return fd


def _exit_name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit {code}"
