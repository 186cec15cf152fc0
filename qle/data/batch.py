"""What a head sees: windows of rows, and queries about them.

One window is read once and asked several queries, so tokens stand per window and queries per (window, place): the same
text in many windows is encoded once (`queries` holds each distinct text, `query_index` points into it).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qle.text.base import Words


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch of windows. Masks are True where something real stands."""

    streams: Mapping[str, Float[Tensor, "windows time *row"]]
    """Tokens as stored (float16, bfloat16 or float32); padding and rows that are not valid are zeros."""
    row_mask: Bool[Tensor, "windows time"]
    times_s: Float[Tensor, "windows time"]
    """float64 seconds from the beginning of the video."""
    queries: tuple[str, ...]
    """Distinct texts."""
    query_index: Int[Tensor, "windows places"]
    """Which text is asked; 0 where the mask is False."""
    query_mask: Bool[Tensor, "windows places"]
    words: Words | None = None
    """Of `queries`; put there by the loop, which owns the text encoder."""
    relevance: Float[Tensor, "windows places time"] | None = None
    """1 where the query happens, 0 where it does not; fractions for saliency."""
    relevance_mask: Bool[Tensor, "windows places time"] | None = None
    """False where it is not known (rows outside the mask, unlabelled rows): no loss there."""
    videos: tuple[str, ...] = ()
    """Key of each window's video."""
    first_rows: tuple[int, ...] = ()
    """Number of each window's first row among the chosen rows of its video."""

    def with_words(self, words: Words) -> "Batch":
        return replace(self, words=words)

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return replace(self, **moved(self, device))


def moved(part: Any, device: torch.device) -> dict[str, Any]:
    """The tensors of a dataclass on a device, by field; in mappings and in parts that know `to` as well."""
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Tensor):
            found[name] = value.to(device, non_blocking=True)
        elif isinstance(value, Mapping):
            found[name] = {key: entry.to(device, non_blocking=True) for key, entry in value.items()}
        elif hasattr(value, "to"):
            found[name] = value.to(device)
    return found
