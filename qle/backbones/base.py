"""The interface of every frozen encoder.

    frames uint8 (batch, time, height, width, 3)
        --encode--> {"patch": (batch, time, rows, cols, dim), "frame": (batch, time, dim), ...}

Every stream has the axes (batch, time) first: one row for each frame that went in, so that whoever stores them needs no
knowledge of the model. `time` is `context.length`; a longer or shorter last clip is the caller's business, not the model's.
"""

import abc
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, UInt8

from qle.backbones import BackboneRequest
from qle.backbones.preprocess import Preprocess
from qle.errors import ConfigError
from qle.types import ClipContext, Stream

SINGLE = ClipContext(mode="single", length=1, step=1)
"""The context of image models: each frame alone."""


class Backbone(abc.ABC):
    """A frozen encoder in evaluation mode on one device. Final classes set the attributes and write the three methods."""

    name: str
    """Short and fit for a folder name, e.g. "m2crl"."""
    preprocess: Preprocess
    context: ClipContext
    streams: tuple[Stream, ...]
    """What `encode` returns for one row, at native size; dtype float32."""
    device: torch.device
    compute_dtype: torch.dtype

    @classmethod
    @abc.abstractmethod
    def build(cls, request: BackboneRequest) -> "Backbone":
        """Load what was asked for; ConfigError where the request does not fit this model, CheckpointError for bad files."""

    @abc.abstractmethod
    def encode(
        self, frames: UInt8[torch.Tensor, "batch time height width 3"]
    ) -> dict[str, Float[torch.Tensor, "batch time *row"]]:
        """One float32 tensor for each of `streams`, on `device`. `frames` may live on any device and is not changed."""

    @abc.abstractmethod
    def provenance(self) -> dict[str, Any]:
        """What defines the numbers beside preprocess and context: id, architecture, weights digest, layer. All of it is hashed
        into the space, so nothing that depends on where a file lies may stand here."""

    @abc.abstractmethod
    def recorded(self) -> dict[str, Any]:
        """What a reader may want to know but what does not define the numbers: source file, device, dtype, versions."""


def check_frames(frames: torch.Tensor, preprocess: Preprocess) -> None:
    """Refuse what `encode` cannot take, before the model answers with a puzzle."""
    height, width = preprocess.output_shape
    if frames.dtype != torch.uint8 or frames.ndim != 5 or frames.shape[2:] != (height, width, 3):
        raise ValueError(
            f"encode takes uint8 (batch, time, {height}, {width}, 3), got {frames.dtype} {tuple(frames.shape)}; "
            "run Preprocess.geometry on the frames first"
        )


def refuse_clips(request: BackboneRequest, what: str) -> None:
    """Image models know no clips: any context but single is a mistake of the user."""
    if request.context not in (None, "single"):
        raise ConfigError(f"--context {request.context}: {what} sees one frame at a time; drop the flag or say single")


def compiled(network: torch.nn.Module, device: torch.device) -> Callable[..., Any]:
    """The network through torch.compile; shapes are constant in a run. On a CPU the weights are packed into the program."""
    options: dict[str, Any] = {"freezing": True} if device.type == "cpu" else {}
    wrapped: Callable[..., Any] = torch.compile(network, dynamic=False, options=options)
    return wrapped


def machine_facts(backbone: Backbone) -> dict[str, Any]:
    """The part of `recorded` that is the same for every encoder."""
    return {
        "device": str(backbone.device),
        "compute_dtype": str(backbone.compute_dtype).removeprefix("torch."),
        "torch": torch.__version__,
    }
