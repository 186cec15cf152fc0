"""Real films that something happened to: flipped bits, ranges that are zero or gone, ends cut off.

    seed -> MutatedFilm: the file, and what was done to it; straight_decode(file) -> what every player shows of it

All randomness comes from the seed. The films are those of the shared clips, and stretches of them encoded by other codecs into
other containers, so that each codec of the table is there with references that lie ahead and behind.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import av.error
import numpy as np
from av.video.reformatter import Interpolation

SHARED = (
    *("diving-19.6fps.mp4", "pancake.mkv", "indoor-15fps.mp4", "edit-list.mp4", "variable-rate.mp4"),
    *("two-video-streams.mp4", "hevc-10bit.mp4", "hevc-seek.mp4", "av1.mkv", "vp8.webm"),
)
ENCODED = {
    "h264.mkv": ("libx264", {"x264-params": "keyint=30:bframes=3"}),
    "h264.ts": ("libx264", {"x264-params": "keyint=30:bframes=2:open-gop=1"}),
    "h264-pyramid.mp4": ("libx264", {"x264-params": "keyint=60:bframes=4:b-pyramid=normal:ref=4:slices=4"}),
    "hevc.mp4": ("libx265", {"x265-params": "log-level=none:keyint=30:bframes=3:pools=1"}),
    "hevc.mkv": ("libx265", {"x265-params": "log-level=none:keyint=25:bframes=2:open-gop=1:pools=1"}),
    "vp8.mkv": ("libvpx", {"deadline": "realtime", "cpu-used": "8"}),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "mpeg4.avi": ("mpeg4", {"bf": "2", "g": "25"}),
    "mpeg4.mp4": ("mpeg4", {"bf": "2", "g": "40"}),
    "mpeg2.ts": ("mpeg2video", {"bf": "2", "g": "24"}),
}
"""File -> encoder and its options, for stretches of real footage."""

NUM_ENCODED = 120
"""Frames of each of them."""
KINDS = ("flips", "zeroed", "dropped", "noise", "cut")


@dataclass(frozen=True, slots=True)
class MutatedFilm:
    """One damaged file."""

    path: Path
    kind: str
    source: str


def whole_films(shared: Path, folder: Path) -> list[Path]:
    """The films to be damaged: shared clips, and pieces of one of them encoded anew."""
    footage = list(_footage(shared / "pancake.mkv", NUM_ENCODED))
    return [shared / name for name in SHARED] + [
        _encoded(folder / name, footage, encoder, options) for name, (encoder, options) in ENCODED.items()
    ]


def mutated(films: list[Path], folder: Path, seed: int) -> MutatedFilm:
    """One film after one accident, both chosen by the seed."""
    rng = np.random.default_rng(seed)
    film, kind = films[seed % len(films)], KINDS[int(rng.integers(len(KINDS)))]
    content = bytearray(film.read_bytes())
    size = len(content)
    # Not the first kilobyte: a file whose header is gone cannot be opened, which is not what is asked here.
    first = int(rng.integers(1024, size - 1))
    length = int(min(size - first, np.exp(rng.uniform(np.log(4), np.log(size / 10)))))
    if kind == "flips":
        for place in rng.integers(1024, size, int(rng.integers(1, 30))).tolist():
            content[place] ^= 1 << int(rng.integers(8))
    elif kind == "zeroed":
        content[first : first + length] = bytes(length)
    elif kind == "noise":
        content[first : first + length] = rng.bytes(length)
    elif kind == "dropped":
        del content[first : first + length]
    else:
        del content[size - max(1, length) :]
    path = folder / f"{seed:04d}-{kind}-{film.name}"
    path.write_bytes(content)
    return MutatedFilm(path, kind, film.name)


@dataclass(frozen=True, slots=True)
class StraightFrame:
    """What one frame looks like when all are decoded in order."""

    tick: int | None
    rgb: np.ndarray
    is_flagged: bool
    """The decoder calls it damaged."""


def straight_decode(path: Path, num_held: int = 0) -> list[StraightFrame]:
    """Every frame that comes out, from the first on, in order, by one thread; packets that cannot be read are passed over.

    `num_held`: so many frames are kept by whoever decodes, as a player with a queue does. Decoders write into the memory of
    frames that nobody holds any longer; a part of a picture that the damaged file does not describe shows what lay there.
    """
    held: deque[av.VideoFrame] = deque(maxlen=num_held)
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.thread_count = 1
        for frame in _frames(container, stream):
            frames.append(StraightFrame(frame.pts, _rgb(frame), frame.is_corrupt))
            held.append(frame)
    return frames


def _frames(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.error.FFmpegError:
                continue
    except av.error.FFmpegError:
        return


def _rgb(frame: av.VideoFrame) -> np.ndarray:
    return frame.reformat(format="rgb24", interpolation=Interpolation.BILINEAR).to_ndarray()


def _footage(path: Path, num_frames: int) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        for frame in islice(container.decode(video=0), num_frames):
            yield frame.reformat(width=256, height=144, format="rgb24").to_ndarray()


def _encoded(path: Path, frames: list[np.ndarray], encoder: str, options: dict[str, str]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate, stream.options = "yuv420p", 400_000, options
        stream.codec_context.thread_count = 1
        for number, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
