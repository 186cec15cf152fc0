"""The interface of heads: `forward(batch) -> HeadOutput`, `loss(output, batch) -> Losses`, and a config.

What a batch is differs from task to task: it stands beside the interface of the heads that read it (rows.py, moments.py,
retrieval.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenShapes:
    """What comes in: fixed by the space and the text encoder, not by the user."""

    streams: Mapping[str, tuple[int, ...]]
    """Row shape of every stream of the space, e.g. {"patch": (14, 14, 768), "frame": (768,)}."""
    text_dim: int
    sentence_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Scalars with their graph: `total` is what is minimised, `terms` are its parts after weighting (for the log)."""

    total: Tensor
    terms: Mapping[str, Tensor]


BatchT = TypeVar("BatchT")
OutputT = TypeVar("OutputT")


class Head(nn.Module, ABC, Generic[BatchT, OutputT]):
    """A trainable module over cached tokens."""

    name: ClassVar[str]
    """Its key in HEADS."""
    task: ClassVar[str]
    """What it is for, which decides what it is fed with and how it is validated: rows, moments or retrieval."""
    Config: ClassVar[type]
    """Frozen dataclass, keyword only, ranges checked in __post_init__."""
    earlier: ClassVar[Mapping[str, Any]] = {}
    """Settings of runs that were written before there were these settings, where that is not what the code begins with."""
    config: Any
    streams: tuple[str, ...]
    """Names of the streams that it reads."""

    @abstractmethod
    def forward(self, batch: BatchT) -> OutputT:
        """`batch.words` must be set."""

    @abstractmethod
    def loss(self, output: OutputT, batch: BatchT) -> Losses:
        """Means over what the masks of the batch allow."""

    @abstractmethod
    def loss_counts(self, batch: BatchT) -> Mapping[str, Tensor]:
        """Over how many entries each term of the loss is a mean; "*" for all that are not named. The parts of a batch, in
        several passes or on several devices, then add up to exactly the loss of the whole."""


def moved(part: Any, device: torch.device) -> dict[str, Any]:
    """The tensors of a dataclass on a device, by field; in mappings and in parts that know `to` as well."""
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    tensors: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Tensor):
            tensors[name] = value.to(device, non_blocking=True)
        elif isinstance(value, Mapping):
            tensors[name] = {key: entry.to(device, non_blocking=True) for key, entry in value.items()}
        elif hasattr(value, "to"):
            tensors[name] = value.to(device)
    return tensors
