"""Small encoded videos whose frames say which number they are, for tests of decoding."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

HEIGHT, WIDTH = 48, 64
BIT_SIDE = 8


def encode(
    path: Path,
    codec: str = "libx264",
    *,
    ticks: Iterable[int] = range(60),
    time_base: Fraction = Fraction(1, 25),
    container_format: str | None = None,
    container_options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
    key_every: int = 10,
    num_b_frames: int | None = None,
) -> Path:
    """One frame for each tick; frame i carries its number (below 128) as bright and dark squares."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w", format=container_format, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=1 / time_base)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, pixel_format, key_every
        stream.codec_context.time_base = time_base
        stream.options = codec_options or {}
        if num_b_frames is not None:
            stream.max_b_frames = num_b_frames
        for number, tick in enumerate(ticks):
            picture = np.full((HEIGHT, WIDTH, 3), number * 4 % 256, np.uint8)
            picture[16:, number * 2 % (WIDTH - 8) :][:, :8] = noise.integers(0, 255, 3)
            for bit in range(7):
                picture[:BIT_SIDE, bit * BIT_SIDE : (bit + 1) * BIT_SIDE] = 255 * (number >> bit & 1)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = tick, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def damage(path: Path, *numbers: int) -> Path:
    """Overwrites the second half of the packets of these frames (in display order), as a bad disk does."""
    with av.open(str(path)) as container:
        packets = sorted((packet.pts, packet.pos, packet.size) for packet in container.demux(video=0) if packet.size)
    content = bytearray(path.read_bytes())
    for _, position, size in (packets[number] for number in numbers):
        content[position + size // 2 : position + size] = b"\x55" * (size - size // 2)
    path.write_bytes(content)
    return path


def number_in(rgb: np.ndarray) -> int:
    """The number that a decoded frame carries."""
    squares = [rgb[3:6, bit * BIT_SIDE + 3 : bit * BIT_SIDE + 6].mean() > 128 for bit in range(7)]
    return sum(int(is_bright) << bit for bit, is_bright in enumerate(squares))
