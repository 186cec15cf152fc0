"""What a user asks: texts from the command line, or a file of them. No torch.

    one query a line                      -> asked of every chosen video
    JSONL {"query", "qid"?, "vid"?} lines -> as the QVHighlights annotation files; a line with `vid` is asked of that video only

A line that cannot be used is an error that names file and line, here or where its words are counted; nothing is skipped but
empty lines.
"""

import sys
from pathlib import Path

from qle.errors import AnnotationError, InputError
from qle.inputs import decode_text, parse_json, read_input_bytes
from qle.types import Query

STANDARD_INPUT = "-"


def read_queries(path: Path) -> tuple[Query, ...]:
    """The queries of a file, or with "-" of the standard input, in their order."""
    try:
        content = sys.stdin.buffer.read() if str(path) == STANDARD_INPUT else read_input_bytes(path)
        text = decode_text(content).replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}\ngive a file with one query a line") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise InputError(f"{path} holds no query\nwrite one a line, or JSONL with a key query")
    is_jsonl = path.suffix.lower() == ".jsonl" or lines[0][1].startswith("{")
    name = "standard input" if str(path) == STANDARD_INPUT else str(path)
    return tuple(
        _parse(line, f"{name}:{number}") if is_jsonl else Query(text=line, where=f"{name}:{number}")
        for number, line in lines
    )


def _parse(line: str, where: str) -> Query:
    try:
        values = parse_json(line)
    except ValueError as error:
        raise AnnotationError(f"{where}: no JSON object ({error})\nexpected e.g. {_EXAMPLE}") from error
    if not isinstance(values, dict) or not isinstance(values.get("query"), str) or not values["query"].strip():
        raise AnnotationError(f"{where}: has no text under the key query\nexpected e.g. {_EXAMPLE}")
    ids = {}
    for name in ("qid", "vid"):
        value = values.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, str | int) or value == ""):
            raise AnnotationError(f"{where}: {name} is {value!r}, expected text or a number\ne.g. {_EXAMPLE}")
        ids[name] = None if value is None else str(value)
    return Query(text=values["query"].strip(), qid=ids["qid"], video=ids["vid"], where=where)


_EXAMPLE = '{"qid": 1, "query": "a green polyp", "vid": "case1"}'
