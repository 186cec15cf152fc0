"""A process that reads windows into shared memory, seen from inside. numpy only: it starts in a fraction of torch's time.

    tasks from the pipe (slot, windows) -> rows into the slot -> (usable rows) or an error back through the pipe

It holds nothing that a kill could leave behind: no lock, no named memory. When the parent goes, so does this process
(`qle.children`).
"""

import mmap
import os
import tempfile
from collections import deque
from collections.abc import Mapping
from multiprocessing.connection import Connection

import numpy as np

from qle.errors import QleError
from qle.tasks.rows.batches.tokens import TokenReader

Task = tuple[int, list[tuple[int, int]]]
"""Slot, and (video, first row) of each window."""


class SharedSlots:
    """Anonymous shared memory, cut into slots that hold one batch each. It goes to a process as a file handle."""

    def __init__(self, shapes: Mapping[str, tuple[tuple[int, ...], np.dtype]], num_slots: int, fd: int | None = None):
        self.shapes, self.num_slots = dict(shapes), num_slots
        self.fd = _anonymous_file(self._slot_bytes * num_slots) if fd is None else fd

    @property
    def _slot_bytes(self) -> int:
        return sum(_padded(shape, dtype) for shape, dtype in self.shapes.values())

    def arrays(self) -> list[dict[str, np.ndarray]]:
        """The slots, mapped; the file handle is closed, the memory lives as long as the arrays do."""
        memory = mmap.mmap(self.fd, self._slot_bytes * self.num_slots)
        os.close(self.fd)
        slots = []
        for slot in range(self.num_slots):
            offset, arrays = slot * self._slot_bytes, {}
            for name, (shape, dtype) in self.shapes.items():
                flat = np.frombuffer(memory, dtype, count=int(np.prod(shape)), offset=offset)
                arrays[name] = flat.reshape(shape)
                offset += _padded(shape, dtype)
            slots.append(arrays)
        return slots


def serve(pipe: Connection, memory_fd: int) -> None:
    """Work until the parent ends this process, or is gone. First comes how the memory is divided, and what reads the tokens."""
    waiting: deque[Task] = deque()
    reader: TokenReader
    try:
        shapes, num_slots, reader = pipe.recv()
        slots = SharedSlots(shapes, num_slots, memory_fd).arrays()
        while True:
            while not waiting or pipe.poll():
                task = pipe.recv()
                for video, first in task[1]:
                    reader.prefetch(video, first)
                waiting.append(task)
            pipe.send(_read(reader, slots, waiting.popleft()))
    except (EOFError, ConnectionError):  # the parent is gone
        return


def _read(reader: TokenReader, slots: list[dict[str, np.ndarray]], task: Task) -> np.ndarray | QleError | OSError:
    slot, windows = task
    try:
        return np.stack(
            [
                reader.read(video, first, {name: array[window] for name, array in slots[slot].items()})
                for window, (video, first) in enumerate(windows)
            ]
        )
    except (QleError, OSError) as error:
        return error


def _padded(shape: tuple[int, ...], dtype: np.dtype) -> int:
    size = int(np.prod(shape)) * dtype.itemsize
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _anonymous_file(size: int) -> int:
    if hasattr(os, "memfd_create"):  # not bound by the size of /dev/shm, which containers keep at 64 MB
        fd = os.memfd_create("qle-batches", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
