"""What every encoder refuses: no queries, an empty one, one that is too long. Nothing is ever cut silently."""

from collections.abc import Iterable, Sequence

from qle.errors import InputError
from qle.text.base import TextEncoder
from qle.types import Query

MAX_SHOWN = 40
"""Characters of a query in a message."""


def refuse_nothing(queries: Sequence[str]) -> None:
    if isinstance(queries, str):
        raise TypeError("queries are a sequence of texts, got one text: pass [query]")
    if not queries:
        raise InputError("no query to encode\npass at least one")


def check_queries(queries: Iterable[Query], encoder: TextEncoder) -> None:
    """InputError for the first query that the encoder cannot read, with file and line where it stands in a file."""
    for query in queries:
        try:
            encoder.check(query.text)
        except InputError as error:
            if not query.where:
                raise
            raise InputError(f"{query.where}: {error}") from error


def check_length(query: str, num_pieces: int, max_words: int, *, num_marks: int, encoder: str) -> None:
    """InputError where nothing but begin and end marks (`num_marks`) is left of a query, or more than `max_words` pieces."""
    if num_pieces <= num_marks or not query.strip():
        raise InputError(f"empty query: {shown(query)} has no words\nsay in words what to look for")
    if num_pieces > max_words:
        marks = f" ({num_marks} of them mark begin and end)" if num_marks else ""
        raise InputError(
            f"query {shown(query)} is too long: {num_pieces} word pieces{marks}, {encoder} reads at most {max_words}\n"
            "say it in fewer words, or ask several queries"
        )


def shown(query: str) -> str:
    """A query in a message: quoted, one line, not longer than a line."""
    return repr(query if len(query) <= MAX_SHOWN else f"{query[:MAX_SHOWN]}...")
