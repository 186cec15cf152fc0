"""The training of one seed, seen from inside its process (seeds.py starts it).

SeedOrder from the pipe -> TrainStatus, note, ... -> RunSummary, or the QleError that ended it
"""

import time
from multiprocessing.connection import Connection

import torch

from qle.errors import QleError
from qle.runtime import keep_freed_memory
from qle.train.progress import TrainStatus
from qle.train.request import resolve
from qle.train.run import run_seed
from qle.train.seeds import SeedOrder

STATUS_S = 0.1
"""Between two statuses that say nothing new but the number of the step."""


def main(pipe: Connection) -> None:
    """Anything but a QleError is a bug and leaves its traceback on stderr."""
    order: SeedOrder = pipe.recv()
    keep_freed_memory()
    torch.set_num_threads(order.num_threads)
    try:
        settings = resolve(order.request)
        pipe.send(run_seed(order.request, settings, order.number, _Reports(pipe).add, pipe.send))
    except QleError as error:
        pipe.send(error)


class _Reports:
    """Not every step of a fast training: the parent shows a few a second."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._next_s = float("-inf")

    def add(self, status: TrainStatus) -> None:
        if status.note or status.is_over or time.monotonic() >= self._next_s:
            self._pipe.send(status)
            self._next_s = time.monotonic() + STATUS_S
