"""Several seeds of a training at once on one machine: each in a process of its own, on its GPU or its share of the cores.

    TrainRequest -> slots (which device, how many threads) -> a process a seed -> TrainStatus, note ... RunSummary | QleError

A process is an interpreter of its own (`qle.children`): when this one goes, however it goes, so does the training, which can go
on later from its checkpoints. A seed that fails does not stop the others; its error comes last.
"""

import signal
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from qle.children import start_child
from qle.errors import ConfigError, QleError, TrainingError
from qle.runtime import are_threads_given, environment, free_cores, num_cores, num_threads, resolve_device
from qle.train.progress import OnNote, OnStatus, TrainStatus
from qle.train.request import TrainRequest
from qle.train.summary import RunSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedSlot:
    """Where one process trains."""

    device: str
    num_threads: int


@dataclass(frozen=True, kw_only=True)
class SeedOrder:
    """What a process is told first."""

    request: TrainRequest
    """With the device of the slot."""
    number: int
    num_threads: int


def seed_slots(request: TrainRequest) -> tuple[SeedSlot, ...]:
    """One for each seed that is trained at the same time; --jobs, else one a GPU, or as many as the cores have threads for.

    ConfigError for several of them where a launcher has already divided the machine.
    """
    wanted = request.num_jobs
    if environment("RANK") is not None:
        if wanted is not None and wanted > 1:
            raise ConfigError(
                "--jobs: accelerate launch gives every seed all of its processes\nleave --jobs out, or leave the launcher out"
            )
        wanted = 1
    device = resolve_device(request.device)
    devices = [str(device)]
    if device.type == "cuda" and request.device in ("auto", "cuda"):
        devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    threads = num_threads() or torch.get_num_threads()
    # One process that computes with all free cores leaves none; where the user has set threads, all cores are meant.
    cores = num_cores() if are_threads_given() else free_cores()
    count = wanted or (max(1, cores // threads) if device.type == "cpu" else len(devices))
    count = min(count, request.num_seeds or 1)
    if count > 1 and num_threads() is None:
        threads = max(1, min(threads, cores // count))
    return tuple(SeedSlot(device=devices[number % len(devices)], num_threads=threads) for number in range(count))


def train_seeds(
    request: TrainRequest, slots: Sequence[SeedSlot], on_status: OnStatus, on_note: OnNote
) -> list[RunSummary]:
    """All seeds, in their order. The first error is raised once all others have ended."""
    pool = _Pool(request, slots, on_status, on_note)
    try:
        return pool.run()
    finally:
        pool.close()


class _Pool:
    def __init__(self, request: TrainRequest, slots: Sequence[SeedSlot], on_status: OnStatus, on_note: OnNote) -> None:
        self._request, self._on_status, self._on_note = request, on_status, on_note
        self._free_slots, self._num_slots = list(slots), len(slots)
        self._waiting = deque(range(request.num_seeds or 1))
        self._running: dict[Connection, _Seed] = {}
        self._done: dict[int, RunSummary] = {}
        self._errors: dict[int, QleError] = {}

    def run(self) -> list[RunSummary]:
        while self._waiting or self._running:
            while self._waiting and self._free_slots:
                seed = _Seed(self._request, self._waiting.popleft(), self._free_slots.pop(0), self._num_slots)
                self._running[seed.pipe] = seed
            for pipe in wait(list(self._running)):
                assert isinstance(pipe, Connection)
                self._hear(self._running[pipe])
        if self._errors:
            raise self._errors[min(self._errors)]
        return [self._done[number] for number in sorted(self._done)]

    def close(self) -> None:
        """Nobody trains on."""
        for seed in self._running.values():
            seed.process.kill()
            seed.end()
        self._running.clear()

    def _hear(self, seed: "_Seed") -> None:
        try:
            message: Any = seed.pipe.recv()
        except (EOFError, OSError):
            self._end(seed)
            return
        if isinstance(message, TrainStatus):
            self._on_status(replace(message, has_company=True))
        elif isinstance(message, str):
            self._on_note(message)
        elif isinstance(message, RunSummary):
            self._done[seed.number] = message
        else:
            self._errors[seed.number] = message

    def _end(self, seed: "_Seed") -> None:
        """Its pipe has ended: with a word, or without one where it was killed or has a bug."""
        code = seed.end()
        del self._running[seed.pipe]
        self._free_slots.append(seed.slot)
        if seed.number not in self._done and seed.number not in self._errors:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            self._errors[seed.number] = TrainingError(
                f"{self._request.seed_folder(seed.number)}: the process of this seed ended with {how}\n"
                "run the same command again: it goes on from the last checkpoint"
            )
        error = self._errors.get(seed.number)
        note = "" if error is None else f"failed: {str(error).splitlines()[0]}"
        name = self._request.seed_folder(seed.number).name
        self._on_status(
            TrainStatus(step=0, num_steps=0, epoch=0, num_epochs=0, run=name, note=note, is_over=True, has_company=True)
        )


class _Seed:
    """One process, seen from here."""

    def __init__(self, request: TrainRequest, number: int, slot: SeedSlot, num_tenants: int) -> None:
        self.number, self.slot = number, slot
        self._child = start_child("qle.train.seed_worker:main", {}, environment={"QLE_TENANTS": str(num_tenants)})
        self.process, self.pipe = self._child.process, self._child.pipe
        request = replace(request, device=slot.device)
        self.pipe.send(SeedOrder(request=request, number=number, num_threads=slot.num_threads))

    def end(self) -> int:
        """Wait for it; its exit code comes back."""
        return self._child.wait()
