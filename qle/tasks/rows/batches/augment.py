"""Augmentation in feature space: mirrored maps and dropped tokens, drawn for each window. Off unless the config asks.

A mirrored map shows another scene, so its queries must say so: "a grasper from the left" becomes "a grasper from the right".
That is why this happens before the distinct queries of a batch are collected. Pooled streams (`frame`, `clip`) have no sides
and stay as they are. Mirroring patch tokens is not the same as extracting a mirrored video: position embeddings have left
their marks in them, and only training can tell whether it helps.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qle.tasks.rows.batches.config import DataConfig
from qle.types import Stream

_PAIRS = {
    "left_right": {"left": "right", "leftmost": "rightmost", "leftward": "rightward", "leftwards": "rightwards"},
    # A bare "up" is rarely a side: things show up and are cleaned up.
    "up_down": {
        "top": "bottom",
        "upper": "lower",
        "uppermost": "lowermost",
        "above": "below",
        "upward": "downward",
        "upwards": "downwards",
    },
}
_TURNS = {"clockwise": "counterclockwise", "counter-clockwise": "clockwise", "anticlockwise": "clockwise"}
"""Mirrored either way; mirrored twice they are as before."""
_OPPOSITE = _TURNS | {"counterclockwise": "clockwise"}
for _pairs in _PAIRS.values():
    _OPPOSITE |= _pairs | {other: word for word, other in _pairs.items()}
_PATTERN = {
    # "right after" is no side; a turn is looked for with its beginning, and longest first.
    kind: re.compile(
        rf"\b({'|'.join(sorted([*pairs, *pairs.values(), *_TURNS, 'counterclockwise'], key=len, reverse=True))})\b"
        r"(?!(?<=right)\s+(?:after|before|away|now|then|when|as)\b)",
        re.IGNORECASE,
    )
    for kind, pairs in _PAIRS.items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What happens to one window."""

    left_right: bool = False
    up_down: bool = False
    kept: np.ndarray | None = None
    """(time, rows, cols) bool: tokens that are not zeroed; None: all are kept."""


def draw(config: DataConfig, streams: Mapping[str, Stream], rng: np.random.Generator) -> Augmentation:
    """The augmentation of a window of these streams; the identity, without a draw, where the config asks for nothing."""
    left_right, up_down = (rng.random(2) < config.flip).tolist() if config.flip else (False, False)
    grid = next((stream.row_shape[:2] for stream in streams.values() if has_grid(stream)), None)
    kept = None
    if config.token_dropout and grid is not None:
        kept = rng.random((config.window_rows, *grid), dtype=np.float32) >= config.token_dropout
    return Augmentation(left_right=left_right, up_down=up_down, kept=kept)


def has_grid(stream: Stream) -> bool:
    """Whether a row of the stream is a map with rows and columns."""
    return stream.axes[:2] == ("rows", "cols") and len(stream.axes) == 3


def mirrored(query: str, augmentation: Augmentation) -> str:
    """The query as it reads for the mirrored picture."""
    for kind, pattern in _PATTERN.items():
        if getattr(augmentation, kind):
            query = pattern.sub(_swap, query)
    return query


def apply(tokens: Mapping[str, Tensor], streams: Mapping[str, Stream], drawn: Sequence[Augmentation]) -> None:
    """Change the maps of a batch (windows, time, rows, cols, dim) in place; the batch must own them."""
    kept = [change.kept for change in drawn if change.kept is not None]
    dropped = ~np.stack(kept) if kept else None
    for name, stream in streams.items():
        if not has_grid(stream):
            continue
        # On the CPU numpy does it in one thread: torch's would take the cores away from the training step.
        maps: Any = _as_numbers(tokens[name]) if tokens[name].device.type == "cpu" else tokens[name]
        for window, change in enumerate(drawn):
            axes = tuple(axis for axis, flip in ((1, change.up_down), (2, change.left_right)) if flip)
            if axes:
                whole = maps[window]
                maps[window] = np.flip(whole, axes).copy() if isinstance(whole, np.ndarray) else whole.flip(axes)
        if dropped is not None:
            maps[dropped if isinstance(maps, np.ndarray) else torch.from_numpy(dropped).to(maps.device)] = 0


def _as_numbers(tensor: Tensor) -> np.ndarray:
    """The same memory for numpy, which knows no bfloat16; whole numbers of the same size serve for copies and zeros."""
    numbers: np.ndarray = tensor.view({2: torch.int16, 4: torch.int32}[tensor.itemsize]).numpy()
    return numbers


def _swap(match: re.Match[str]) -> str:
    """The opposite word, written as this one is: left, Left, LEFT."""
    word = match.group()
    other = _OPPOSITE[word.lower()]
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other
