"""JSON files of datasets, entry by entry with the line that each begins in, in one place for the readers beside it.

one list or object a file -> (line, key, value), ...        JSON Lines -> (line, row), ...
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qle.data.annotations import parse_row, raw_lines, refuse_constant
from qle.data.readers.text_rows import read_text
from qle.data.readlog import BadRow, ReadLog
from qle.errors import AnnotationError
from qle.inputs import refuse_halves

_SPACE = " \t\r\n"


def object_items(path: Path) -> list[tuple[int, str, Any]]:
    """Line, key and value of every entry of a file that holds one object. AnnotationError for anything else, and for a key
    that is there twice, of which Python's own reader would keep the last and say nothing."""
    document = _Document(path)
    document.expect("{", "one JSON object")
    items: list[tuple[int, str, Any]] = []
    lines: dict[str, int] = {}
    while not document.ends_with("}", has_items=bool(items)):
        line = document.line
        key = document.value()
        if not isinstance(key, str):
            raise document.error(f"expected a key, got {key!r}")
        document.expect(":", "a value behind the key")
        if lines.setdefault(key, line) != line or (items and key == items[-1][1]):
            raise AnnotationError(f"{path} line {line}: {key!r} stands in line {lines[key]} too")
        items.append((line, key, document.value()))
    return items


def list_items(path: Path) -> list[tuple[int, Any]]:
    """Line and value of every entry of a file that holds one list. AnnotationError for anything else."""
    document = _Document(path)
    document.expect("[", "one JSON list")
    items: list[tuple[int, Any]] = []
    while not document.ends_with("]", has_items=bool(items)):
        items.append((document.line, document.value()))
    return items


def json_rows(path: Path, log: ReadLog) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line and row of every line of JSON Lines; lines that are no JSON object go to the log."""
    for line, content in enumerate(raw_lines(path), start=1):
        if content.strip():
            try:
                row = parse_row(content)
            except BadRow as bad:
                log.bad(path, line, bad)
            else:
                yield line, row


def is_json_lines(path: Path) -> bool:
    """Whether the first line is a whole row with a query, as in the keys of QVHighlights."""
    first = next((content for content in raw_lines(path) if content.strip()), b"")
    try:
        return "query" in parse_row(first)
    except BadRow:
        return False


class _Document:
    """A place in the text of a file that moves forward only, and knows its line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = read_text(path)
        self._at = 0
        self._counted = (0, 1)
        self._decoder = json.JSONDecoder(parse_constant=refuse_constant)
        self._skip_space()

    @property
    def line(self) -> int:
        at, line = self._counted
        self._counted = (self._at, line + self._text.count("\n", at, self._at))
        return self._counted[1]

    def expect(self, sign: str, what: str) -> None:
        if not self._text.startswith(sign, self._at):
            rest = self._text[self._at : self._at + 20] or "the end of the file"
            raise self.error(f"expected {what}, got {rest!r}")
        self._at += 1
        self._skip_space()

    def ends_with(self, sign: str, *, has_items: bool) -> bool:
        """Behind an entry, or the opening bracket: either the end of the document, or where the next entry begins."""
        if self._text.startswith(sign, self._at):
            self.expect(sign, "the end")
            if self._at < len(self._text):
                raise self.error(f"expected the end of the file, got {self._text[self._at : self._at + 20]!r}")
            return True
        if has_items:
            self.expect(",", f"',' or '{sign}'")
        return False

    def value(self) -> Any:
        try:
            value, end = self._decoder.raw_decode(self._text, self._at)
            refuse_halves(self._text[self._at : end], value)
            self._at = end
        except json.JSONDecodeError as error:
            raise AnnotationError(f"{self._path} line {error.lineno}: no JSON: {error.msg}") from error
        except (ValueError, RecursionError) as error:  # NaN, numbers of thousands of digits, a million brackets
            raise self.error(f"no JSON: {error}") from error
        self._skip_space()
        return value

    def error(self, reason: str) -> AnnotationError:
        return AnnotationError(f"{self._path} line {self.line}: {reason}")

    def _skip_space(self) -> None:
        while self._at < len(self._text) and self._text[self._at] in _SPACE:
            self._at += 1
