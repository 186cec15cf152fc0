"""A committed video -> the same rows in another format, number type or grid, committed like any other.

Reads through the mapped reader, writes through the one writer, a few megabytes at a time whatever the length. Where only
the format changes the stored bytes pass unchanged; else numbers are decoded, pooled in float32 and encoded again.
"""

import numpy as np

from qle.cache.files.quantise import SCALE
from qle.cache.integrity import check_content
from qle.cache.reader import Video
from qle.cache.records import CommitRecord
from qle.cache.spaces import SpaceFolder
from qle.cache.writer import VideoWriter
from qle.durable import Durability
from qle.types import RowPlan, StoreKind, Stream

BLOCK_BYTES = 32 << 20


def rewrite_video(
    video: Video, into: SpaceFolder, *, store: StoreKind, replace: bool = False, durability: Durability = "full"
) -> CommitRecord:
    """Write a video into a space whose streams may differ in dtype and in the grid of `patch`. A dead attempt goes on."""
    check_content(video.folder, video.record)
    plan = RowPlan(frame_index=video.index, pts_s=video.pts, is_valid=video.valid)
    source = video.record.source
    with VideoWriter.open(into, video.key, plan, source, store=store, durability=durability, replace=replace) as writer:
        todo = np.flatnonzero(~writer.is_done)
        for stream in into.record.streams:
            if stream.name != SCALE or _is_same(stream, video):
                _write_stream(video, stream, writer, todo)
        record = video.record
        return writer.commit(attempt=record.attempt, versions=record.versions, timings_s=record.timings_s)


def _write_stream(video: Video, stream: Stream, writer: VideoWriter, todo: np.ndarray) -> None:
    is_same = _is_same(stream, video)
    step = max(1, BLOCK_BYTES // max(1, video.streams[stream.name].row_bytes))
    for start in range(0, video.num_rows, step):
        stop = min(start + step, video.num_rows)
        rows = todo[np.searchsorted(todo, start) : np.searchsorted(todo, stop)]
        if not len(rows):
            continue
        values = video.read(stream.name, start, stop, raw=is_same)[rows - start]
        writer.write(stream.name, rows, values if is_same else _converted(values, stream))


def _is_same(stream: Stream, video: Video) -> bool:
    """Whether stored bytes may pass as they are; with scales, those of the patches must too."""
    names = ("patch", SCALE) if stream.name == SCALE else (stream.name,)
    return all(name in video.streams for name in names) and video.streams[stream.name] == stream


def _converted(values: np.ndarray, stream: Stream) -> np.ndarray:
    numbers = values.astype(np.float32, copy=False)
    if numbers.shape[1:] != stream.row_shape:
        numbers = pool_grid(numbers, stream.row_shape[0], stream.row_shape[1])
    return numbers


def pool_grid(patch: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Mean of the tokens of each cell of a smaller grid, "time rows cols dim"; cells overlap where it does not divide."""
    down = _cell_weights(patch.shape[1], rows)
    across = _cell_weights(patch.shape[2], cols)
    pooled: np.ndarray = np.einsum("ir,jc,trcd->tijd", down, across, patch, optimize=True)
    return pooled.astype(np.float32, copy=False)


def _cell_weights(size: int, cells: int) -> np.ndarray:
    """(cells, size) float32: cell i is the mean of floor(i size / cells) to ceil((i + 1) size / cells), as in torch."""
    weights = np.zeros((cells, size), np.float32)
    for cell in range(cells):
        first, last = cell * size // cells, -(-(cell + 1) * size // cells)
        weights[cell, first:last] = 1 / (last - first)
    return weights
