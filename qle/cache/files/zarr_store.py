"""Zarr v3: one group per video, every array a raw block of rows. The only file that imports zarr.

A shard whose grid is split along the row axis alone and that has no codec *is* the plain C-order rows, followed by an
index (offset and length of every inner chunk, 16 bytes each) and the index's crc32c (4 bytes). So zarr-python writes
the metadata, our own writer puts rows where they belong in any order, `shard_tail` closes the shard, and every Zarr v3
reader opens the result, while our own reader maps it. Times and masks are one plain chunk each.

Chunk keys use "." ("patch/c.0.0.0.0"), which the format allows: one folder per array instead of one per axis and shard,
so a commit has fewer folders to fsync.
"""

import json
import struct
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from qle.cache.handles import folder_handle, refuse_links_below
from qle.cache.records import RawRows
from qle.durable import write_file
from qle.types import TIME_STREAMS, Stream

SHARD_ROWS = 512
"""154 MB of 196x768 float16: eight files for an hour at one frame a second; also what a killed run loses at most."""

CHUNK_ROWS = 8
"""2.4 MB of 196x768 float16: a good range request, and at most seven rows of padding in a video."""

SMALL_CHUNK_ROWS = 64
SMALL_ROW_BYTES = 16 << 10
"""Below, 64 rows make less than 1 MB, and up to 63 of padding cost little; above, they would cost more than a short video."""

_ABSENT = 2**64 - 1  # offset and length of a chunk that a shard does not hold
_TIMES = frozenset(stream.name for stream in TIME_STREAMS)


def create(space: Path, folder: Path, streams: Sequence[Stream], num_rows: int) -> dict[str, RawRows]:
    """Make the group and its arrays in a folder below a space, without any data; the writer fills in the rows where the
    result says."""
    layouts = {}
    for name, document in _documents(tuple(streams)).items():
        document = json.loads(document)
        if name:
            document["shape"][0] = num_rows
        if name in _TIMES:
            document["chunk_grid"]["configuration"]["chunk_shape"][0] = num_rows
        with folder_handle(space, folder / name, make=True) as handle:
            write_file(folder / name / "zarr.json", json.dumps(document, indent=2).encode(), "none", handle)
    for stream in streams:
        is_sharded = stream.name not in _TIMES
        chunk_key = ".".join(["c", "{}", *("0" for _ in stream.row_shape)])
        layouts[stream.name] = RawRows(
            path=f"{stream.name}/{chunk_key}",
            rows_per_file=SHARD_ROWS if is_sharded else num_rows,
            rows_per_chunk=_chunk_rows(stream) if is_sharded else 0,
        )
    return layouts


@lru_cache(maxsize=64)
def _documents(streams: tuple[Stream, ...]) -> dict[str, str]:
    """zarr.json of the group ("") and of every array, for one row: zarr-python writes them once for all videos."""
    import zarr

    files: dict[str, Any] = {}
    group = zarr.create_group(store=files, zarr_format=3)
    for stream in streams:
        is_sharded = stream.name not in _TIMES
        group.create_array(
            stream.name,
            shape=(1, *stream.row_shape),
            dtype=stream.stored_dtype,
            chunks=(_chunk_rows(stream) if is_sharded else 1, *stream.row_shape),
            shards=(SHARD_ROWS, *stream.row_shape) if is_sharded else None,
            filters=None,
            compressors=None,
            fill_value=_fill_value(stream),
            chunk_key_encoding={"name": "default", "separator": "."},
            dimension_names=("time", *stream.axes),
            attributes=attributes(stream),
        )
    return {path.removesuffix("zarr.json").rstrip("/"): content.to_bytes().decode() for path, content in files.items()}


def attributes(stream: Stream) -> dict[str, Any]:
    """What a reader of a single array must know."""
    known: dict[str, Any] = {"axes": ["time", *stream.axes], "qle_dtype": stream.dtype}
    if stream.name == "pts":
        known["units"] = "seconds"
    return known


def shard_tail(num_rows: int, stream: Stream, layout: RawRows) -> bytes:
    """What follows the rows of a shard: fill values to the end of the last inner chunk, then the index."""
    num_filled = -num_rows % layout.rows_per_chunk
    fill = np.nan if stream.stored_dtype.kind == "f" else 0
    padding = np.full((num_filled, *stream.row_shape), fill, stream.stored_dtype).tobytes()
    num_chunks = (num_rows + num_filled) // layout.rows_per_chunk
    return padding + _index(num_chunks, layout.rows_per_file // layout.rows_per_chunk, _chunk_bytes(stream, layout))


def expected_index(file_size: int, stream: Stream, layout: RawRows) -> bytes:
    """How a shard of this size must end if its rows lie in order and without gaps."""
    capacity = layout.rows_per_file // layout.rows_per_chunk
    num_chunks = (file_size - 16 * capacity - 4) // _chunk_bytes(stream, layout)
    return _index(max(num_chunks, 0), capacity, _chunk_bytes(stream, layout))


def _chunk_bytes(stream: Stream, layout: RawRows) -> int:
    return layout.rows_per_chunk * stream.row_bytes


@lru_cache(maxsize=256)
def _index(num_present: int, capacity: int, chunk_bytes: int) -> bytes:
    """Offset and length of every inner chunk of a shard, then the crc of them."""
    entries = [(i * chunk_bytes, chunk_bytes) if i < num_present else (_ABSENT, _ABSENT) for i in range(capacity)]
    index = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    return index + struct.pack("<I", google_crc32c.value(index))


def read_rows(folder: Path, name: str, start: int, stop: int) -> np.ndarray:
    """Stored values of an array in any codec, by zarr-python: slow and general."""
    import zarr

    refuse_links_below(folder)
    array = zarr.open_array(folder, path=name, mode="r")
    return np.asarray(array[start:stop])


def array_shape(folder: Path, name: str) -> tuple[int, ...]:
    """Shape of an array, as its own description says."""
    import zarr

    refuse_links_below(folder)
    return tuple(zarr.open_array(folder, path=name, mode="r").shape)


def _chunk_rows(stream: Stream) -> int:
    return SMALL_CHUNK_ROWS if stream.row_bytes < SMALL_ROW_BYTES else CHUNK_ROWS


def _fill_value(stream: Stream) -> Any:
    kind = stream.stored_dtype.kind
    return float("nan") if kind == "f" else kind != "b" and 0
