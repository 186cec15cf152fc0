"""Whether a record can be true: its rows, shapes and places against the space and the sizes of files, before any of it is used.

A record comes from a disk, or from a stranger. One that claims 10^12 rows must not make a reader reserve memory for them, and
one whose rows would lie a little beside the real ones must not be read as if nothing were wrong. Records enter, the first
contradiction leaves as one line of text, or none. No file is touched: sizes are those that the record claims, and every
reader compares them with the files.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from qle.cache.records import CommitRecord, RawRows, SpaceRecord, StreamRecord
from qle.types import TIME_STREAMS, Stream

SUPERBLOCK_BYTES = 48
"""What an HDF5 file begins with, before any dataset."""

MAX_ROW_BYTES = 1 << 40
"""More than any machine could hold of a single row."""

DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "int64", "bool")


def space_contradiction(space: SpaceRecord) -> str:
    """What is wrong with the streams that a space describes; empty where nothing is."""
    for stream in space.streams:
        row_bytes = 1
        for size in stream.row_shape:
            row_bytes *= size
        if stream.dtype not in DTYPES:
            return f"stream {stream.name!r}: {stream.dtype!r} is no number type of a stream"
        if min(stream.row_shape, default=1) < 1 or row_bytes > MAX_ROW_BYTES:
            return f"stream {stream.name!r}: no row has the shape {stream.row_shape}"
        if len(stream.axes) != len(stream.row_shape):
            return f"stream {stream.name!r}: {len(stream.axes)} axes for {len(stream.row_shape)} sizes"
    return _otherwise_hashed(space)


def _otherwise_hashed(space: SpaceRecord) -> str:
    """The hash of a space covers its streams too, where whoever made it wrote them down as qle does."""
    hashed = space.hashed.get("streams")
    streams = [{"name": it.name, "row_shape": list(it.row_shape), "dtype": it.dtype} for it in space.streams]
    is_ours = isinstance(hashed, list) and all(isinstance(it, dict) and it.keys() == streams[0].keys() for it in hashed)
    return "its streams are not the ones that its hash was made of" if is_ours and hashed != streams else ""


def commit_contradiction(record: CommitRecord, space: SpaceRecord) -> str:
    """What is wrong with the record of a video that stands by itself; empty where nothing is."""
    if record.num_valid > record.num_rows:
        return f"{record.num_valid} of {record.num_rows} rows are valid"
    return streams_contradiction(record.streams, space, record.num_rows) or layout_contradiction(
        record.streams, {file.path: file.size for file in record.files}, is_exact=record.store == "zarr"
    )


def streams_contradiction(streams: Sequence[StreamRecord], space: SpaceRecord, num_rows: int) -> str:
    """Whether these are the arrays of the space, with so many rows each."""
    expected = {stream.name: stream for stream in (*space.streams, *TIME_STREAMS)}
    if len(streams) != len(expected) or {stream.name for stream in streams} != expected.keys():
        return f"it has the streams {', '.join(stream.name for stream in streams)}, the space has {', '.join(expected)}"
    for stream in streams:
        if stream.shape[0] != num_rows:
            return f"stream {stream.name!r} has {stream.shape[0]} rows, the record {num_rows}"
        if stream.stream != expected[stream.name]:
            return f"stream {stream.name!r} is {_described(stream.stream)}, in the space {_described(expected[stream.name])}"
    return ""


def layout_contradiction(streams: Sequence[StreamRecord], sizes: Mapping[str, int], *, is_exact: bool) -> str:
    """Whether the rows of all streams fit into files of these sizes, each byte belonging to one of them.

    is_exact: a file holds rows of one stream and what the format puts behind them, as in Zarr, and nothing else.
    """
    taken: dict[str, list[tuple[int, int, str]]] = {}
    for stream in streams:
        if stream.raw is None:
            continue
        if problem := _stream_layout_contradiction(stream, stream.raw, sizes, is_exact=is_exact):
            return f"stream {stream.name!r}: {problem}"
        end = stream.raw.offset + min(stream.shape[0], stream.raw.rows_per_file) * stream.stream.row_bytes
        taken.setdefault(stream.raw.path, []).append((stream.raw.offset, end, stream.name))
    for ranges in taken.values():
        ranges.sort()
        for (_, end, name), (start, _, other) in pairwise(ranges):
            if start < end or is_exact:
                return f"streams {name!r} and {other!r} lie in the same bytes"
    return ""


def _stream_layout_contradiction(
    stream: StreamRecord, raw: RawRows, sizes: Mapping[str, int], *, is_exact: bool
) -> str:
    row_bytes = stream.stream.row_bytes
    num_files = -(-stream.shape[0] // raw.rows_per_file)
    if num_files > len(sizes) or (num_files > 1 and "{}" not in raw.path):
        return f"its {stream.shape[0]} rows would lie in {num_files} files, the record lists {len(sizes)}"
    if raw.first_row:
        return f"its rows begin at row {raw.first_row} of an array that holds nothing else"
    for number in range(num_files):
        path = raw.path.replace("{}", str(number))
        if path not in sizes:
            return f"{path} is not among the files of the record"
        num_rows = min(stream.shape[0] - number * raw.rows_per_file, raw.rows_per_file)
        if raw.rows_per_chunk and is_exact:
            is_wrong = _is_no_shard(raw, row_bytes, num_rows, sizes[path])
        elif is_exact:
            is_wrong = sizes[path] != raw.offset + raw.rows_per_file * row_bytes
        else:
            is_wrong = raw.offset < SUPERBLOCK_BYTES or sizes[path] < raw.offset + num_rows * row_bytes
        if is_wrong:
            return f"{num_rows} rows do not fit {path} of {sizes[path]} bytes"
    return ""


def _is_no_shard(raw: RawRows, row_bytes: int, num_rows: int, size: int) -> bool:
    """A shard is whole chunks from its beginning on, then 16 bytes for each that it could hold, then a checksum of 4."""
    capacity, rest = divmod(raw.rows_per_file, raw.rows_per_chunk)
    chunk_bytes = raw.rows_per_chunk * row_bytes
    num_chunks = -(-num_rows // raw.rows_per_chunk)
    return bool(rest or raw.offset) or size != num_chunks * chunk_bytes + 16 * capacity + 4


def _described(stream: Stream) -> str:
    return f"{' x '.join(map(str, stream.row_shape)) or '1'} {stream.dtype} ({', '.join(stream.axes)})"
