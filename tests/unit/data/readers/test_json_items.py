"""Lists and objects entry by entry, with lines."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qle.data.readers.json_items import is_json_lines, list_items, object_items
from qle.errors import AnnotationError


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        return tmp_path / "a.json"

    return write


@pytest.mark.parametrize("indent", [None, 2])
def test_entries_are_those_of_the_document(file: Callable[[str], Path], indent: int | None) -> None:
    content: dict[str, Any] = {"a": [1, {"b": "\n}"}], "": None, "\u00e9": {"c": []}}
    assert {key: value for _, key, value in object_items(file(json.dumps(content, indent=indent)))} == content
    values = list(content.values())
    assert [value for _, value in list_items(file("\ufeff " + json.dumps(values, indent=indent) + "\n\n"))] == values
    assert object_items(file("{ }")) == []
    assert list_items(file("[]")) == []


def test_lines_are_where_entries_begin(file: Callable[[str], Path]) -> None:
    assert object_items(file('{"a": [\n1\n],\n"b":\n2,"c": 3}')) == [(1, "a", [1]), (4, "b", 2), (5, "c", 3)]
    assert list_items(file("\n[\n1,\n\n2]")) == [(3, 1), (5, 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected one JSON object, got 'the end of the file'"),
        ("[1]", "line 1: expected one JSON object, got '[1]'"),
        ('{"a": 1', "line 1: expected ',' or '}', got 'the end of the file'"),
        ('{"a": 1} x', "line 1: expected the end of the file, got 'x'"),
        ('{\n"a": 1\n"b": 2}', "line 3: expected ',' or '}', got"),
        ('{"a" 1}', "line 1: expected a value behind the key, got '1}'"),
        ('{\n\n1: 2}', "line 3: expected a key, got 1"),
        ('{"a": 1,\n"a": 2}', "line 2: 'a' stands in line 1 too"),
        ('{"a": 1, "a": 2}', "line 1: 'a' stands in line 1 too"),
        ('{\n"a": NaN}', "line 2: no JSON: NaN is no number"),
        ('{\n"a": [\n1,]}', "line 3: no JSON: "),
        ('{"a": ' + "[" * 100_000, "line 1: no JSON: "),
        ('{"a": ' + "9" * 5_000 + "}", "line 1: no JSON: "),
    ],
)  # fmt: skip
def test_what_is_no_json_is_told_with_its_line(file: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=re.escape(f"a.json {message}")):
        object_items(file(text))


def test_a_row_and_a_document_are_told_apart(file: Callable[[str], Path]) -> None:
    assert is_json_lines(file('\n{"query": "a", "vid": "b"}\n'))
    for text in ('{"v_a": {"sentences": []}}', "AAAAA 1 2##a", "", "[1]"):
        assert not is_json_lines(file(text))
