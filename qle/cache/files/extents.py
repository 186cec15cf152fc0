"""Rows <-> bytes of files: the one calculation that the writer, the reader and the checks share. No file is touched here."""

from collections.abc import Iterator
from dataclasses import dataclass

from qle.cache.records import RawRows


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of rows that lies in one file without gaps."""

    path: str
    """Relative to the video's folder."""
    offset: int
    """Byte of the file where the run begins."""
    first_row: int
    """Row of the video."""
    num_rows: int


def extents(raw: RawRows, row_bytes: int, start: int, stop: int) -> Iterator[Extent]:
    """The file ranges that hold rows start..stop-1 of a video, in order."""
    row = start
    while row < stop:
        number, inside = divmod(raw.first_row + row, raw.rows_per_file)
        count = min(raw.rows_per_file - inside, stop - row)
        yield Extent(raw.path.replace("{}", str(number)), raw.offset + inside * row_bytes, row, count)
        row += count
