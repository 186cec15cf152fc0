"""Text files of datasets, line by line: encodings, delimiters and numbers, in one place for the readers beside it."""

import csv
import io
import math
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from qle.data.readlog import BadRow
from qle.errors import AnnotationError, InputError
from qle.inputs import decimal_point, decode_text, read_input_bytes


def read_text(path: Path) -> str:
    """A whole file in UTF-8 or UTF-16; a byte order mark is dropped, and every line ends with \\n."""
    try:
        return decode_text(read_input_bytes(path)).replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise InputError(f"cannot read annotations {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise AnnotationError(f"{path}: {error}") from error


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and text of every line that is not blank."""
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        if text.strip():
            yield line, text.strip()


def table_rows(path: Path, delimiter: str | None = None) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells by column of a CSV whose first line names the columns and, if not given, shows the delimiter.

    Decimal commas become points where cells are parted by something else, as spreadsheets save them. A row with more or fewer
    cells than columns has a further one, called "", that says so.
    """
    text = read_text(path)
    header = text.split("\n", 1)[0]
    delimiter = delimiter or max(",;\t", key=header.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = [name.strip() for name in next(rows, [])]
        if len(set(columns)) < len(columns):
            raise AnnotationError(f"{path} line 1: a column is there twice: {', '.join(columns)}")
        line = rows.line_num + 1
        for cells in rows:
            if any(cell.strip() for cell in cells):
                known = (decimal_point(cell.strip(), delimiter) for cell in cells[: len(columns)])
                row = dict(zip_longest(columns, known, fillvalue=""))
                is_right = len(cells) == len(columns)
                yield line, row if is_right else row | {"": f"{len(cells)} cells for {len(columns)} columns"}
            line = rows.line_num + 1
    except csv.Error as error:
        raise AnnotationError(f"{path} line {rows.line_num}: no CSV: {error}") from error


def columns_needed(
    path: Path, rows: Iterable[tuple[int, dict[str, str]]], columns: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table that must have these columns; `check_cells` of each is left to the reader."""
    for line, row in rows:
        if missing := [column for column in columns if column not in row]:
            raise AnnotationError(
                f"{path} line 1: no column {', '.join(missing)}\ncolumns: {', '.join(name for name in row if name)[:200]}"
            )
        yield line, row


def check_cells(row: dict[str, str]) -> None:
    """BadRow for a row with more or fewer cells than columns."""
    if "" in row:
        raise BadRow("row", row[""])


def one_line(text: str) -> str:
    """Words with single spaces between them: a query is asked in one line."""
    return " ".join(text.split())


def parse_number(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        hint = ", with a decimal point" if "," in text else ""
        raise BadRow(key, f"expected a number{hint}, got {text[:80]!r}") from error
    if not math.isfinite(value):
        raise BadRow(key, f"expected a finite number, got {text!r}")
    return value


def parse_seconds(key: str, text: str) -> float:
    """Seconds, or clock time as players show it: 83.5, 1:23.5, 0:01:23.5."""
    *larger, last = text.split(":")
    seconds = parse_number(key, last)
    if larger and (len(larger) > 2 or not all(_is_count(part.strip()) for part in larger) or not 0 <= seconds < 60):
        raise BadRow(key, f"expected seconds, or [h:]mm:ss, got {text[:80]!r}")
    for scale, part in zip((60, 3600), reversed(larger), strict=False):
        seconds += scale * int(part)
    return seconds


def _is_count(part: str) -> bool:
    """Digits that int() reads: not those that stand high ("\u00b2"), and not thousands of them."""
    return part.isdecimal() and len(part) < 10
