"""Reads files that a user, an earlier command or a stranger wrote: bounded, and with two kinds of errors. No torch.

    path            -> bytes        OSError: it is not there, cannot be read, is too long, or is no file where a record belongs
    bytes           -> JSON value   ValueError: no JSON, nested too deep, a number of thousands of digits, text that is no Unicode
    bytes           -> text         ValueError: neither UTF-8 nor UTF-16, with the line and how to save it again
    text of a path  -> nothing      ConfigError: it is an address of another machine

Every reader of JSON goes through `parse_json`, and every reader of a text file through `decode_text`; the reader turns the two
errors into its own, which say what the file is for. Python's decoder has no bound on its own: 10^5 brackets end in a
RecursionError, and half a surrogate pair comes out as text that cannot be written, hashed or shown later.
"""

import codecs
import errno
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qle.errors import ConfigError, QleError

MOST_RECORD_BYTES = 256 << 20
"""A record of a cache or run is kilobytes, the record of a pack of many thousand videos some megabytes."""
MOST_TEXT_BYTES = 1 << 30
"""The largest published annotation file has some hundred megabytes."""
_MOST_UNPACKED_FREELY = 256 << 20
_MOST_SHRUNK = 200

_HALF_OF_A_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
_ADDRESS = re.compile(r"(?:[A-Za-z0-9+.-]+::)*([A-Za-z][A-Za-z0-9+.-]+)://")
_DECIMAL_COMMA = re.compile(r"[+-]?(\d+:)*\d+,\d+")
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SAVE_AGAIN = 'save it again as UTF-8 (in Excel: Save As, "CSV UTF-8")'


class NotARecordError(OSError):
    """Something else stands where a record belongs: a folder, a pipe, a device, or a file of many megabytes."""


def read_record_bytes(path: Path, most_bytes: int = MOST_RECORD_BYTES) -> bytes:
    """A file that qle itself has written. A pipe or a device in its place is a NotARecordError at once, never a wait."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        kind = os.fstat(fd)
        if not stat.S_ISREG(kind.st_mode):
            raise NotARecordError(errno.EINVAL, "a folder, pipe or device stands there", str(path))
        if kind.st_size > most_bytes:
            raise NotARecordError(errno.EFBIG, _too_long(most_bytes), str(path))
        with open(fd, "rb", buffering=0, closefd=False) as file:
            return file.read()
    finally:
        os.close(fd)


def read_input_bytes(path: Path, most_bytes: int = MOST_TEXT_BYTES) -> bytes:
    """A file that the user named. It may be a pipe, as `<(command)` makes one."""
    with open(path, "rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, _too_long(most_bytes), str(path))
    return content


def parse_json(content: bytes | str, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """The value of a JSON text; ValueError for everything that is none, or that no later step could handle.

    `parse_constant` is called with NaN, Infinity and -Infinity, which Python reads and JSON does not have.
    """
    try:
        text = content if isinstance(content, str) else content.decode(json.detect_encoding(content))
        value = json.loads(text.removeprefix("\ufeff"), parse_constant=parse_constant)
    except RecursionError as error:
        raise ValueError("brackets are nested too deep") from error
    refuse_halves(text, value)
    return value


def refuse_halves(text: str, value: Any) -> None:
    """ValueError where the value that was read from a JSON text holds half of a surrogate pair. Whole pairs pass."""
    if not _HALF_OF_A_PAIR.search(text):
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"text holds {error.object[error.start]!a}, half of a character") from error
    except RecursionError as error:
        raise ValueError("brackets are nested too deep") from error


def utf8_bytes(content: bytes) -> bytes:
    """Content in UTF-8 without a mark, where it is UTF-16 with one; as it is otherwise, whatever it is. For readers that look at
    each line by itself, so that one wrong line is one wrong row."""
    if content.startswith(_UTF16_MARKS):
        return content.decode("utf-16", "replace").encode()
    return content.removeprefix(codecs.BOM_UTF8)


def decimal_point(cell: str, delimiter: str) -> str:
    """1,5 -> 1.5, 1:23,5 -> 1:23.5 in a table with other signs between its cells, as spreadsheets in half of Europe write it."""
    return cell.replace(",", ".") if delimiter != "," and _DECIMAL_COMMA.fullmatch(cell) else cell


def decode_text(content: bytes) -> str:
    """The text of a file in UTF-8, or in UTF-16 with the mark that programs put in front of it. The mark is dropped.

    ValueError for other encodings, with the line: what their bytes mean cannot be known, only guessed.
    """
    if content.startswith(_UTF16_MARKS):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as error:
            raise ValueError(f"begins like UTF-16 text and is none: {error.reason}\n{_SAVE_AGAIN}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8 text (byte 0x{content[error.start]:02x})\n{_SAVE_AGAIN}") from error
    if "\0" in text[:4096]:
        raise ValueError(
            f"holds zero bytes, as UTF-16 text without its mark does, or a file that is no text\n{_SAVE_AGAIN}"
        )
    return text


def refuse_address(what: str, path: str, error: type[QleError] = ConfigError) -> None:
    """An error for s3://bucket/x and the like: pathlib would read it as a path below a folder `s3:`.

    `what`: how the user named it, an option or a line of a file.
    """
    address = _ADDRESS.match(path)
    if address is None:
        return
    scheme = address.group(1).lower()
    raise error(
        f"{what} {path}: expected a path on this machine, got an address ({scheme}://)\n"
        + (
            f"give the path alone: {path[address.end() :]}"
            if scheme == "file"
            else "copy it here, or mount it, and give its path"
        )
    )


def refuse_bomb(packed_bytes: int, unpacked_bytes: int) -> None:
    """ValueError for an array that would fill the memory out of a small file: measured numbers never shrink that much."""
    if unpacked_bytes > _MOST_UNPACKED_FREELY and unpacked_bytes > _MOST_SHRUNK * max(packed_bytes, 1):
        raise ValueError(
            f"{packed_bytes:,} bytes would unpack to {unpacked_bytes:,}: damaged, or made to fill the memory"
        )


def _too_long(most_bytes: int) -> str:
    return f"longer than the {most_bytes / (1 << 20):,.0f} MiB that such a file may have"
