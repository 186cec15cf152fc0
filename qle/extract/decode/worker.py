"""One decode process: takes tasks from a pipe, puts prepared frames into its ring, and may die at any time.

    ("probe", ProbeTask) -> ("probed", info, box)
    ("decode", Order)    -> ("frames", slot, rows, damaged rows) ... ("finished",)    any task -> ("failed", DecodeError)
    ("release", slot)       the receiver has copied a slot
    ("cancel",)             stop the task in hand, answered by ("finished",)

Started by process.py with an interpreter of its own; it ends with its parent (qle.children), also while a decoder hangs.
torch is never imported here, which makes the start fast and keeps a worker small.
"""

import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from qle.backbones.preprocess import Preprocess, content_box
from qle.errors import DecodeError
from qle.extract.decode.decoder import FrameRequest, make_decoder, request_frames
from qle.extract.decode.tasks import ProbeTask, Ring
from qle.types import Box, VideoInfo

BORDER_FRAMES = 9
"""Frames over the whole video that are looked at for black borders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A DecodeTask as it is sent: without the table of all frames, which would make long videos cost memory here."""

    request: FrameRequest
    decoder: str
    rows: np.ndarray
    frame_index: np.ndarray
    geometries: tuple[Preprocess, ...]
    content_box: Box | None


class _CancelledError(Exception):
    """The receiver does not want the rest."""


def main(pipe: Connection, memory_fd: int, ring: dict[str, int]) -> None:
    """Runs until the pipe closes. `ring`: the fields of the Ring that the memory is divided by."""
    slots = Ring(**ring)
    memory = mmap.mmap(memory_fd, slots.size_bytes)
    os.close(memory_fd)
    worker = _Worker(pipe, np.frombuffer(memory, np.uint8), slots)
    _silence_stderr()
    try:
        worker.run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone or has closed the pool


class _Worker:
    def __init__(self, pipe: Connection, memory: np.ndarray, ring: Ring) -> None:
        self._pipe = pipe
        self._memory = memory
        self._life = memory[:8].data.cast("Q")
        self._ring = ring
        self._free = list(range(ring.num_slots))
        self._is_cancelled = False

    def run(self) -> None:
        self._pipe.send(("ready",))
        while True:
            self._handle(self._pipe.recv())
            _give_back_memory()

    def _handle(self, message: tuple[Any, ...]) -> None:
        match message:
            case ("probe", task):
                self._answer(task.source.path, lambda: self._probe(task))
            case ("decode", order):
                self._answer(order.request.path, lambda: self._decode(order))
            case ("release", slot):
                self._free.append(slot)
            case ("cancel",):
                self._is_cancelled = True

    def _answer(self, path: Path, work: Callable[[], tuple[Any, ...]]) -> None:
        self._is_cancelled = False
        try:
            answer = work()
        except _CancelledError:
            answer = ("finished",)
        except DecodeError as error:
            answer = ("failed", error)
        except MemoryError:
            answer = ("failed", DecodeError(f"{path}: the decoder ran out of memory", kind="memory"))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # noqa: BLE001 - a bug in a decoder costs one video, as its crash would
            answer = ("failed", DecodeError(f"{path}: the decoder failed: {type(error).__name__}: {error}"))
        self._pipe.send(answer)

    def _beat(self) -> None:
        self._life[0] += 1

    def _probe(self, task: ProbeTask) -> tuple[Any, ...]:
        from qle.extract.decode.probe import probe  # loads the video library

        info = probe(task.source.path, self._beat, keep_partial=task.keep_partial)
        box = content_box(self._border_frames(info)) if task.needs_content_box else None
        return ("probed", info, box)

    def _border_frames(self, info: VideoInfo) -> Iterator[np.ndarray]:
        # Neither the first nor the last frame: both are often black all over.
        numbers = (np.arange(BORDER_FRAMES) + 0.5) / BORDER_FRAMES * info.num_frames
        request = request_frames(info, np.unique(numbers.astype(np.int64)))
        for _, rgb in make_decoder("pyav").frames(request, self._beat):
            yield rgb

    def _decode(self, order: Order) -> tuple[Any, ...]:
        shapes = tuple(geometry.output_shape for geometry in order.geometries)
        slot, num_filled, done = -1, 0, 0
        views: tuple[np.ndarray, ...] = ()
        decoder = make_decoder(order.decoder)
        damaged: list[int] = []
        for number, rgb in decoder.frames(order.request, self._beat):
            boxes = [order.content_box if geometry.crop_borders else None for geometry in order.geometries]
            images = [geometry.geometry(rgb, box) for geometry, box in zip(order.geometries, boxes, strict=True)]
            while done < len(order.rows) and order.frame_index[done] == number:
                if slot < 0:
                    slot = self._take_slot()
                    views = self._ring.images(self._memory, slot, shapes)
                for view, image in zip(views, images, strict=True):
                    view[num_filled] = image
                if number in decoder.damaged:
                    damaged.append(int(order.rows[done]))
                num_filled += 1
                done += 1
                if num_filled == self._ring.rows_per_slot or done == len(order.rows):
                    rows = order.rows[done - num_filled : done]
                    self._pipe.send(("frames", slot, rows, np.array(damaged, np.int64)))
                    slot, num_filled, damaged = -1, 0, []
            self._read_messages()
        if done < len(order.rows):  # nobody downstream would notice, and the video would be waited for for ever
            raise DecodeError(f"{order.request.path}: the decoder ended after {done} of {len(order.rows)} rows")
        return ("finished",)

    def _take_slot(self) -> int:
        while not self._free:
            self._handle(self._pipe.recv())
            self._raise_if_cancelled()
        return self._free.pop()

    def _read_messages(self) -> None:
        self._beat()
        while self._pipe.poll():
            self._handle(self._pipe.recv())
        self._raise_if_cancelled()

    def _raise_if_cancelled(self) -> None:
        if self._is_cancelled:
            raise _CancelledError


def _give_back_memory() -> None:
    """What the tables of a long video took goes back to the system; the C library would keep it for the next."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # GNU only
    if trim is not None:
        trim(0)


def _silence_stderr() -> None:
    """Video libraries complain there, some with the bytes of a whole broken file. Errors come back as errors."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
