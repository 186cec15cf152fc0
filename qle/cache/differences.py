"""In what two descriptions of spaces differ, as one line that people can read."""

from collections.abc import Mapping
from typing import Any

MAX_LISTED = 4
"""Differences that a message names before it counts the rest."""


def different(ours: Any, theirs: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Dotted name and both values of every leaf in which two JSON values differ; None where one has no such leaf."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return [
            difference
            for name in sorted({*ours, *theirs})
            for difference in different(ours.get(name), theirs.get(name), f"{path}.{name}" if path else name)
        ]
    is_same = _plain(ours) == _plain(theirs)
    return [] if is_same else [(path, ours, theirs)]


def listed(differences: list[tuple[str, Any, Any]], our_name: str, their_name: str) -> str:
    """`backbone.id: run 'tiny', cache 'm2crl'; ...` on one line."""
    shown = [f"{name}: {our_name} {_short(a)}, {their_name} {_short(b)}" for name, a, b in differences[:MAX_LISTED]]
    rest = f"; ... and {len(differences) - MAX_LISTED} more" if len(differences) > MAX_LISTED else ""
    return "; ".join(shown) + rest


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
