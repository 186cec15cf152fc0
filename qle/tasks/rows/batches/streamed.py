"""Tokens read from disk by processes of their own, when memory does not hold them. The inside: stream_worker.py.

Batch k goes to process k mod N, and comes back in that order. Its tokens never go through a pipe: the process copies them
from the page cache into shared memory that both sides map. A process that dies is noticed at once, by its pipe.
"""

import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import numpy as np
import torch

from qle.data.loading.buffers import Buffers
from qle.errors import QleError
from qle.tasks.rows.batches.sources import TokenSource, TokenWindows, as_stored, batch_shapes
from qle.tasks.rows.batches.stream_worker import SharedSlots, serve
from qle.tasks.rows.batches.tokens import TokenReader
from qle.tasks.rows.batches.windows import WindowBatch

TASKS_EACH = 2
"""A process works on one batch and lets the kernel fetch the next."""
SPARE_SLOTS = 3
"""Besides those that are being filled or wait: what the consumer holds."""


class StreamedTokens(TokenSource):
    """N processes and their slots."""

    def __init__(self, reader: TokenReader, num_windows: int, num_workers: int, num_ahead: int) -> None:
        self._reader = reader
        shapes = batch_shapes(reader, num_windows)
        memory = SharedSlots(shapes, TASKS_EACH * num_workers + num_ahead + SPARE_SLOTS)
        context = multiprocessing.get_context("forkserver")  # threads and devices of this process do not survive a fork
        self._pipes: list[Connection] = []
        self.processes: list[BaseProcess] = []
        for number in range(num_workers):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=serve, args=(theirs, memory, reader), name=f"qle-data-{number}", daemon=True
            )
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self.processes.append(process)
        self._slots = Buffers(shapes)
        for arrays in memory.arrays():
            self._slots.add(arrays)
        self._pending: deque[tuple[int, int]] = deque()
        """(process, slot) of what was asked for, oldest first."""

    def read(self, batches: Sequence[WindowBatch]) -> Iterator[TokenWindows]:
        while self._pending:  # an earlier reading was broken off
            self._receive()
        asked = 0
        for _ in batches:
            while asked < len(batches) and len(self._pending) < TASKS_EACH * len(self.processes):
                free = self._free_slots()
                if not free:
                    break
                self._send(asked % len(self.processes), free[0], batches[asked])
                asked += 1
            slot, usable = self._receive()
            tensors = {name: torch.from_numpy(view) for name, view in self._slots.lend(slot).items()}
            if not self._free_slots():  # the consumer collects batches: it gets copies, or reading would stop
                tensors = {name: tensor.clone() for name, tensor in tensors.items()}
            yield TokenWindows(streams=as_stored(self._reader, tensors), usable=usable)
            del tensors

    def close(self) -> None:
        for pipe, process in zip(self._pipes, self.processes, strict=True):
            pipe.close()  # the end of its pipe is the end of the process
            process.join()
            process.close()
        self._pipes, self.processes = [], []
        self._pending.clear()

    def _free_slots(self) -> list[int]:
        taken = {slot for _, slot in self._pending}
        return [slot for slot in self._slots.free() if slot not in taken]

    def _send(self, worker: int, slot: int, batch: WindowBatch) -> None:
        windows = list(zip(batch.video.tolist(), batch.first.tolist(), strict=True))
        try:
            self._pipes[worker].send((slot, windows))
        except ConnectionError:
            raise self._died(worker) from None
        self._pending.append((worker, slot))

    def _receive(self) -> tuple[int, np.ndarray]:
        worker, slot = self._pending.popleft()
        wait([self._pipes[worker], self.processes[worker].sentinel])
        try:
            answer = self._pipes[worker].recv()
        except (EOFError, ConnectionError):
            raise self._died(worker) from None
        if isinstance(answer, BaseException):
            raise answer
        return slot, answer

    def _died(self, worker: int) -> QleError:
        process = self.processes[worker]
        process.join()
        self._pending.clear()
        return QleError(
            f"a process that reads tokens ahead ended unexpectedly (pid {process.pid}, exit code {process.exitcode}); "
            "exit code -9 is a kill, often for memory\n"
            "run again (training resumes at its last checkpoint), with a lower data.num_workers or data.placement=mapped"
        )
