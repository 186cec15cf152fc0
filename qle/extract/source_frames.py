"""Pictures for reports: the very frames that rows of the cache describe, fetched from the source video.

    path of the video, numbers of frames in display order (stream `index`) -> upright rgb pictures

The one place after extraction where a pixel is decoded again, and only to be looked at: no score depends on it. A source that
is gone is an InputError, which reports turn into a note: tokens outlive their film.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from qle.errors import DecodeError
from qle.extract.decode.decoder import make_decoder, request_frames
from qle.extract.decode.probe import probe


def frames_of(path: Path, frame_index: np.ndarray, *, max_side: int | None = None) -> list[np.ndarray]:
    """(height, width, 3) uint8 for each number, in the order asked; equal numbers give the same picture.

    `max_side`: pictures with a longer side are made smaller, so that many of them fit into a page and into memory.
    """
    if len(frame_index) == 0:
        return []
    wanted = np.unique(np.asarray(frame_index, np.int64))
    frame_of = {number: _shrunk(rgb, max_side) for number, rgb in _decoded(path, wanted)}
    return [frame_of[int(number)] for number in frame_index]


def stream_frames(path: Path, frame_index: np.ndarray, *, max_side: int | None = None) -> Iterator[np.ndarray]:
    """The same one by one, for numbers that do not decrease: a film of any length needs the memory of one picture."""
    wanted, repeats = np.unique(np.asarray(frame_index, np.int64), return_counts=True)
    for (_, rgb), count in zip(_decoded(path, wanted), repeats.tolist(), strict=True):
        yield from [_shrunk(rgb, max_side)] * count


def _decoded(path: Path, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(number, picture) in the order of the distinct numbers."""
    info = probe(path)
    if wanted[0] < 0 or wanted[-1] >= info.num_frames:
        raise DecodeError(
            f"{path}: frame {wanted[-1] if wanted[0] >= 0 else wanted[0]} of {info.num_frames} was asked for\n"
            "the file is another one than the tokens were made from; extract it again",
            kind="changed",
        )
    yield from make_decoder("pyav").frames(request_frames(info, wanted))


def _shrunk(rgb: np.ndarray, max_side: int | None) -> np.ndarray:
    height, width = rgb.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return rgb
    factor = max_side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))
