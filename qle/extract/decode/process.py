"""One decode process, seen from the parent: its pipe, its ring, its task, and whether it is well.

How it is started, and that it ends with its parent, is a matter of `qle.children`; here it gets memory without a name besides.
"""

import logging
import mmap
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from qle.children import start_child
from qle.errors import DecodeError
from qle.extract.decode.decoder import request_frames
from qle.extract.decode.tasks import DecodeTask, Event, Failed, Finished, Frames, Probed, ProbeTask, Ring
from qle.extract.decode.worker import Order

log = logging.getLogger(__name__)

PAGE_BYTES = mmap.PAGESIZE


class WorkerProcess:
    """One process with its pipe and ring, and what it is doing."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        memory_fd = _anonymous_memory(ring.size_bytes)
        self._memory = np.frombuffer(mmap.mmap(memory_fd, ring.size_bytes, access=mmap.ACCESS_READ), np.uint8)
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the worker ends
        self._child = start_child(
            "qle.extract.decode.worker:main",
            {
                "memory_fd": memory_fd,
                "ring": {
                    "num_slots": ring.num_slots,
                    "rows_per_slot": ring.rows_per_slot,
                    "frame_bytes": ring.frame_bytes,
                },
            },
            # A job that is ended reaches the whole group: a decoder that dies of it before its parent would fail its video.
            ignored=(signal.SIGINT, signal.SIGTERM),
            # One thread per worker is the unit that the pool counts in, so number libraries must not start their own.
            environment={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            inherited_fds=(memory_fd,),
            stderr=self._stderr,
        )
        os.close(memory_fd)
        self.process, self.pipe = self._child.process, self._child.pipe
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
        """Sends the task; where memory does not suffice for that (MemoryError) the worker stays idle."""
        message: tuple[Any, ...] = ("probe", task)
        if isinstance(task, DecodeTask):
            order = Order(
                request=request_frames(task.info, task.frame_index),
                decoder=task.decoder,
                rows=task.rows,
                frame_index=task.frame_index,
                geometries=task.geometries,
                content_box=task.content_box,
            )
            message = ("decode", order)
            self._shapes = tuple(geometry.output_shape for geometry in task.geometries)
        self.send(message)
        self.task = task
        self.last_sign_s = time.monotonic()
        self._last_frame = -1

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
            case ("frames", slot, rows, damaged):
                return self._frames(slot, rows, damaged)
            case ("probed", info, box):
                return Probed(tag=self._done(), info=info, content_box=box)
            case ("finished",):
                return Finished(tag=self._done())
            case ("failed", error):
                if error.frames_expected is None and isinstance(self.task, DecodeTask):
                    error.frames_decoded, error.frames_expected = self._last_frame + 1, self.task.info.num_frames
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

    @property
    def exit_name(self) -> str:
        """How the process ended, e.g. SIGSEGV."""
        code = self.process.returncode
        return signal.Signals(-code).name if code < 0 else f"exit {code}"

    def end(self) -> None:
        """Kills the process and keeps the end of what it wrote before it was up."""
        self._child.kill()
        if not self._stderr.closed:
            self._stderr.seek(0)
            self.last_words = self._stderr.read()[-2000:].decode("utf-8", "replace")
            self._stderr.close()

    def _done(self) -> int:
        if self.task is None:
            raise RuntimeError("a decode process answered without a task")
        tag, self.task = self.task.tag, None
        return tag

    def _frames(self, slot: int, rows: np.ndarray, damaged: np.ndarray) -> Frames:
        if not isinstance(self.task, DecodeTask):
            raise RuntimeError("a decode process sent frames without a task")
        self._num_out += 1
        last_row = int(np.searchsorted(self.task.rows, rows[-1]))
        self._last_frame = int(self.task.frame_index[last_row])
        views = self._ring.images(self._memory, slot, self._shapes)
        images = tuple(view[: len(rows)] for view in views)
        return Frames(tag=self.task.tag, rows=rows, images=images, damaged=damaged, release=lambda: self._release(slot))

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
