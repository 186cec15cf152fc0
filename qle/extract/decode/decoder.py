"""Frames out of files, whatever the library: one request, one interface, a dict of decoders.

    VideoInfo + numbers of wanted frames --request_frames--> FrameRequest --Decoder.frames--> (number, upright rgb uint8) ...

A request is small whatever the length of the video: stamps of the wanted frames only, not the table of all. Frames are known by
their stamp in ticks of the container's time base, never by counting, because what a decoder counts differs between libraries
(edit lists, leading pictures, damaged files). Adding a decoder: a final class in a file named decode_*.py, one line below.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from qle.config import load_plugin
from qle.errors import ConfigError
from qle.extract.sampling import NO_SEEK, decode_runs
from qle.types import VideoInfo

DECODERS = {
    "pyav": "qle.extract.decode.pyav:PyavDecoder",
}
"""name -> "module:Class", imported on look-up. A name with a colon is taken as such a path itself."""

NO_TICK = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRequest:
    """Wanted frames of one file, and the way to them."""

    path: Path
    rotation: int
    """Degrees clockwise that turn the stored picture upright."""
    num_frames: int
    """Frames of the whole video, for messages."""
    numbers: np.ndarray
    """(wanted,) int64: numbers in display order, strictly increasing."""
    pts_s: np.ndarray
    """(wanted,) float64: their display times."""
    has_stamps: bool
    """Otherwise frames are counted from the beginning, and ticks are numbers."""
    ticks: np.ndarray
    """(wanted,) int64: their stamps in ticks of the container's time base."""
    seek_numbers: np.ndarray
    """(wanted,) int64: number of the key frame to jump to first, or NO_SEEK."""
    seek_ticks: np.ndarray
    """(wanted,) int64: stamp of that key frame, or NO_TICK."""


def no_beat() -> None:
    """For callers who do not watch."""


class Decoder(ABC):
    """Gives the requested frames in order, holding a bounded number of them at any time."""

    damaged: Set[int] = frozenset()
    """Numbers of the frames given so far that the decoder itself calls damaged: they are what a straight decode shows, and
    still not what was recorded."""

    @abstractmethod
    def frames(self, request: FrameRequest, beat: Callable[[], None] = no_beat) -> Iterator[tuple[int, np.ndarray]]:
        """(number, (height, width, 3) uint8 upright rgb) for each wanted frame, or DecodeError. Never a stand-in picture.

        `beat` is called whenever something got done, so that long stretches between wanted frames are not taken for a hang.
        """


def request_frames(info: VideoInfo, frame_index: np.ndarray) -> FrameRequest:
    """What a decoder needs to know to give these frames (non-decreasing, repeats allowed)."""
    runs = decode_runs(frame_index, info.is_key)
    seek_ticks = np.full(len(runs.frames), NO_TICK)
    if info.has_stamps:
        ticks = to_ticks(info.pts_s[runs.frames], info.time_base)
        is_seek = runs.seek_to != NO_SEEK
        seek_ticks[is_seek] = to_ticks(info.pts_s[runs.seek_to[is_seek]], info.time_base)
    else:
        ticks = runs.frames
    return FrameRequest(
        path=info.path,
        rotation=info.rotation,
        num_frames=info.num_frames,
        numbers=runs.frames,
        pts_s=info.pts_s[runs.frames],
        has_stamps=info.has_stamps,
        ticks=ticks,
        seek_numbers=runs.seek_to,
        seek_ticks=seek_ticks,
    )


def to_ticks(pts_s: np.ndarray, time_base: Fraction) -> np.ndarray:
    """Seconds back to the container's stamps; exact, since seconds were made from them and float64 holds 15 digits."""
    return np.rint(pts_s * time_base.denominator / time_base.numerator).astype(np.int64)


def upright(rgb: np.ndarray, rotation: int) -> np.ndarray:
    """The stored picture turned clockwise."""
    return rgb if rotation == 0 else np.ascontiguousarray(np.rot90(rgb, k=-rotation // 90))


def choose_decoder(info: VideoInfo, requested: str) -> str:
    """The decoder for one video. auto is PyAV: it is exact everywhere, and no other was faster (docs/decisions/0002-decoders.md).

    `info` is there for decoders that are right on some files only: they are refused on the others here, with the reason.
    """
    if requested == "auto":
        return "pyav"
    if requested not in DECODERS and ":" not in requested:
        raise ConfigError(f"unknown decoder {requested!r}: choose auto, {', '.join(sorted(DECODERS))}")
    return requested


def make_decoder(name: str) -> Decoder:
    """A decoder by its name in DECODERS, or by "module:Class"."""
    if name not in DECODERS and ":" not in name:
        raise ConfigError(f"unknown decoder {name!r}: choose auto, {', '.join(sorted(DECODERS))}")
    decoder_class: type[Decoder] = load_plugin(DECODERS.get(name, name))
    return decoder_class()
