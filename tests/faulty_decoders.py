"""Decoders that do to their process what real ones have done: abort, hang, leak. Named in tasks as "tests.faulty_decoders:X"."""

import ctypes
import itertools
import mmap
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from qle.errors import DecodeError
from qle.extract.decode.decoder import Decoder, FrameRequest, make_decoder, no_beat

GOOD_FRAMES = 20
"""What comes out before the fault."""


class _Faulty(Decoder):
    def frames(self, request: FrameRequest, beat: Callable[[], None] = no_beat) -> Iterator[tuple[int, np.ndarray]]:
        for place, number in enumerate(request.numbers.tolist()):
            if place == GOOD_FRAMES:
                self.misbehave(beat)
            yield number, np.full((48, 64, 3), number % 256, np.uint8)

    def misbehave(self, beat: Callable[[], None]) -> None:
        raise NotImplementedError


class Aborting(_Faulty):
    def misbehave(self, beat: Callable[[], None]) -> None:
        os.abort()


class Crashing(_Faulty):
    def misbehave(self, beat: Callable[[], None]) -> None:
        ctypes.string_at(0)


class Hanging(_Faulty):
    def misbehave(self, beat: Callable[[], None]) -> None:
        while True:
            time.sleep(60)


class Leaking(_Faulty):
    def misbehave(self, beat: Callable[[], None]) -> None:
        kept = []
        while True:
            kept.append(np.ones(1 << 20))
            beat()
            time.sleep(0.005)


class Cramped(Decoder):
    """The decoder itself, in a process that gets 24 MB more and no byte beyond, where the name of the video says "huge"."""

    def frames(self, request: FrameRequest, beat: Callable[[], None] = no_beat) -> Iterator[tuple[int, np.ndarray]]:
        whole = resource.getrlimit(resource.RLIMIT_AS)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
        if "huge" in request.path.name:
            resource.setrlimit(resource.RLIMIT_AS, (size + (24 << 20), whole[1]))
        try:
            yield from make_decoder("pyav").frames(request, beat)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, whole)


class Raising(_Faulty):
    def misbehave(self, beat: Callable[[], None]) -> None:
        raise ZeroDivisionError("a bug in a decoder")


class Stopping(_Faulty):
    """Takes the end of the file for the end of its task."""

    def frames(self, request: FrameRequest, beat: Callable[[], None] = no_beat) -> Iterator[tuple[int, np.ndarray]]:
        yield from itertools.islice(super().frames(request, beat), GOOD_FRAMES)


class Patient(Decoder):
    """Takes its time between frames, but shows that it is alive."""

    def frames(self, request: FrameRequest, beat: Callable[[], None] = no_beat) -> Iterator[tuple[int, np.ndarray]]:
        for number in request.numbers.tolist():
            for _ in range(30):
                time.sleep(0.1)
                beat()
            yield number, np.zeros((48, 64, 3), np.uint8)


class Endless(Decoder):
    """Never done with its frames, for tests that end it from outside."""

    def frames(self, request: FrameRequest, beat: Callable[[], None] = no_beat) -> Iterator[tuple[int, np.ndarray]]:
        for number in request.numbers.tolist():
            time.sleep(0.01)
            beat()
            yield number, np.full((48, 64, 3), number % 256, np.uint8)


class Lingering(Decoder):
    """Gives white frames, and the last of them again and again, until it is cancelled or, after half a minute, leaves a
    file "<video>.end". The first range of a long video fails at once instead."""

    def frames(self, request: FrameRequest, beat: Callable[[], None] = no_beat) -> Iterator[tuple[int, np.ndarray]]:
        numbers = request.numbers[:GOOD_FRAMES].tolist()
        if numbers[0] == 0 and request.num_frames > 500:
            raise DecodeError("the first range is bad")
        for number in numbers + numbers[-1:] * 3000:
            yield number, np.full((48, 64, 3), 255, np.uint8)
            time.sleep(0.01)
        request.path.with_suffix(".end").touch()
