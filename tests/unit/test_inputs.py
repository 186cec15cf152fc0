"""Files are read with a bound, and whatever is wrong with them is one of two errors."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qle.inputs import NotARecordError, decode_text, parse_json, read_input_bytes, read_record_bytes

TOO_DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "content",
    [
        TOO_DEEP,
        b'{"a":' * 100_000,
        b"1" * 5000,
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b'"\\ud800 \\udc00"',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b"",
        b"{",
        b"\x00\x00\x00",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_json_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(content)


@pytest.mark.parametrize("text", ['{"a": [1, "\\ud83d\\ude00", "\u00e9"]}', "\ufeff[1]", "3"])
def test_json_is_read_from_text_and_from_bytes_in_every_encoding_of_json(text: str) -> None:
    value = parse_json(text)
    for encoding in ("utf-8", "utf-16", "utf-32"):
        assert parse_json(text.removeprefix("\ufeff").encode(encoding)) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_value_error(content: bytes) -> None:
    for read in (parse_json, decode_text):
        try:
            read(content)
        except ValueError:
            continue


@given(st.text(max_size=50))
def test_text_is_read_in_the_encodings_that_spreadsheets_write(text: str) -> None:
    text = text.replace("\0", "").removeprefix("\ufeff")
    for encoding in ("utf-8-sig", "utf-16"):
        assert decode_text(text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("path\nSchr\u00e4g.mp4\n".encode("latin-1"), "line 2 is not UTF-8"),
        ("path;start\n".encode("utf-16-le"), "zero bytes"),
        (b"\xff\xfea", "UTF-16"),
    ],
)
def test_other_encodings_are_refused_with_how_to_save_the_file(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        decode_text(content)
    assert "CSV UTF-8" in str(caught.value)


def test_a_record_is_a_regular_file_of_a_bounded_size(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(b"{}")
    assert read_record_bytes(tmp_path / "record.json") == b"{}"
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(NotARecordError, match="folder, pipe or device"):
            read_record_bytes(path)
    with pytest.raises(NotARecordError, match="longer than"):
        read_record_bytes(tmp_path / "record.json", most_bytes=1)
    with pytest.raises(FileNotFoundError):
        read_record_bytes(tmp_path / "nothing")


def test_an_input_without_end_is_refused() -> None:
    with pytest.raises(OSError, match="longer than"):
        read_input_bytes(Path("/dev/zero"), most_bytes=1 << 20)
