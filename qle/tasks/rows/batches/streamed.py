"""Tokens read from disk by processes of their own, when memory does not hold them. The inside: stream_worker.py.

Batch k goes to process k mod N, and comes back in that order. Its tokens never go through a pipe: the process copies them
from the page cache into shared memory that both sides map. A process that dies is noticed at once, by its pipe.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import torch

from qle.children import Child, start_child
from qle.data.loading.buffers import Buffers
from qle.errors import QleError
from qle.tasks.rows.batches.sources import TokenSource, TokenWindows, as_stored, batch_shapes
from qle.tasks.rows.batches.stream_worker import SharedSlots
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
        self.children: list[Child] = []
        for _ in range(num_workers):
            child = start_child(
                "qle.tasks.rows.batches.stream_worker:serve", {"memory_fd": memory.fd}, inherited_fds=(memory.fd,)
            )
            self.children.append(child)
            with suppress(ConnectionError):  # it is dead already, as the end of its pipe will say
                child.pipe.send((memory.shapes, memory.num_slots, reader))
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
            while asked < len(batches) and len(self._pending) < TASKS_EACH * len(self.children):
                free = self._free_slots()
                if not free:
                    break
                self._send(asked % len(self.children), free[0], batches[asked])
                asked += 1
            slot, usable = self._receive()
            tensors = {name: torch.from_numpy(view) for name, view in self._slots.lend(slot).items()}
            if not self._free_slots():  # the consumer collects batches: it gets copies, or reading would stop
                tensors = {name: tensor.clone() for name, tensor in tensors.items()}
            yield TokenWindows(streams=as_stored(self._reader, tensors), usable=usable)
            del tensors

    def close(self) -> None:
        for child in self.children:
            child.kill()  # it only reads
        self.children = []
        self._pending.clear()

    def _free_slots(self) -> list[int]:
        taken = {slot for _, slot in self._pending}
        return [slot for slot in self._slots.free() if slot not in taken]

    def _send(self, worker: int, slot: int, batch: WindowBatch) -> None:
        windows = list(zip(batch.video.tolist(), batch.first.tolist(), strict=True))
        try:
            self.children[worker].pipe.send((slot, windows))
        except ConnectionError:
            raise self._died(worker) from None
        self._pending.append((worker, slot))

    def _receive(self) -> tuple[int, np.ndarray]:
        worker, slot = self._pending.popleft()
        try:
            answer = self.children[worker].pipe.recv()
        except (EOFError, ConnectionError):
            raise self._died(worker) from None
        if isinstance(answer, BaseException):
            raise answer
        return slot, answer

    def _died(self, worker: int) -> QleError:
        process = self.children[worker].process
        code = process.wait()
        self._pending.clear()
        return QleError(
            f"a process that reads tokens ahead ended unexpectedly (pid {process.pid}, exit code {code}); "
            "exit code -9 is a kill, often for memory\n"
            "run again (training resumes at its last checkpoint), with a lower data.num_workers or data.placement=mapped"
        )
