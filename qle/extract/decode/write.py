"""Frames to a small mp4: for the demo, the self-test of decoders and the tests. Extraction itself never encodes."""

import errno
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.codec import Codec
from av.codec.codec import UnknownCodecError

from qle.errors import MissingDependencyError

ENCODERS = ("libx264", "mpeg4")
"""In the order of preference; the second is part of every FFmpeg, the first is what cameras and recorders write."""

REPRODUCIBLE = {"libx264": {"preset": "veryfast", "x264-params": "mbtree=0"}}
"""x264's macroblock tree depends on what happens to lie in memory: the second encoding of the same frames differs."""


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float, *, is_reproducible: bool = False) -> None:
    """Encode (height, width, 3) uint8 rgb frames of one even size at a constant rate; the file appears when it is whole.

    Reproducible: equal frames give equal bytes, however many cores there are; a little larger, and encoded faster.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "a film can only become an ordinary file", str(path))
    beside = _beside(path)
    rate = Fraction(fps).limit_denominator(90_000)
    try:
        with av.open(str(beside), "w", format="mp4") as container:
            stream = container.add_stream(_encoder(), rate=rate)
            stream.pix_fmt = "yuv420p"
            stream.gop_size = max(1, round(2 * rate))
            if is_reproducible:
                stream.codec_context.thread_count = 1
                stream.options = REPRODUCIBLE.get(stream.codec_context.name, {})
            for number, rgb in enumerate(frames):
                if number == 0:
                    stream.height, stream.width = rgb.shape[:2]
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                frame.pts, frame.time_base = number, 1 / rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        beside.replace(path)
    except av.error.FFmpegError as error:
        if not isinstance(error, OSError):
            raise
        raise OSError(
            error.errno, error.strerror, str(path)
        ) from error  # such as a full disk: of the file that was asked for
    finally:
        beside.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Delete what `write_video` leaves beside this file when its process is killed."""
    _beside(path).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _encoder() -> str:
    for name in ENCODERS:
        try:
            Codec(name, "w")
        except UnknownCodecError:
            continue
        return name
    raise MissingDependencyError(
        f"this PyAV has none of the encoders {', '.join(ENCODERS)}\ninstall the official wheel: pip install --force-reinstall av"
    )
