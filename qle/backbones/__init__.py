"""Frozen encoders: pictures enter, named streams of tokens leave.

    frames uint8 --preprocess.py (geometry, in the decode process)--> the model's size
        --Backbone.encode--> {"patch": ..., "frame": ...}

base.py         the interface that every encoder implements
preprocess.py   how a picture becomes the input of a model
tiny.py         built in, with fixed numbers: for trying things out
hf.py           any vision transformer of the transformers library; hf_load.py finds and opens it
m2crl.py        the video transformer of M2CRL and Endo-FM; m2crl_files.py reads the files that it comes in
trial.py        whether a backbone will work on this machine
vit.py          the layers of vision transformers, for inference only

Adding one: a file with a final class that implements `qle.backbones.base.Backbone`, and one line in BACKBONES. Importing
this package loads no torch, so that help, plans and error messages stay fast.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qle.config import load_plugin
from qle.errors import ConfigError
from qle.hub import check_available

if TYPE_CHECKING:
    from qle.backbones.base import Backbone

BACKBONES = {
    "hf": "qle.backbones.hf:HuggingFaceBackbone",
    "m2crl": "qle.backbones.m2crl:M2crlBackbone",
    "tiny": "qle.backbones.tiny:TinyBackbone",
}
"""name -> "module:Class", imported on look-up."""

TAKES_WEIGHTS = frozenset({"m2crl", "hf"})
"""Names that mean nothing without `BackboneRequest.weights`: a file for m2crl, a folder for hf."""

KNOWS_CLIPS = frozenset({"m2crl"})
"""Names whose models see several frames at once; `BackboneRequest.context` is for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneRequest:
    """What a user may choose about a backbone. None means: as the backbone itself would have it."""

    name: str
    """A key of BACKBONES, the id of a Hugging Face model ("openai/clip-vit-base-patch16"), or a folder that holds one."""
    weights: Path | None = None
    """A checkpoint file; m2crl needs one, the others bring their own."""
    weights_entry: Literal["teacher", "student"] | None = None
    """Which network of an m2crl training file; None takes the teacher where there is one."""
    context: Literal["centre", "tile", "single"] | None = None
    """How frames stand together in a clip; image models know only single."""
    resize: Literal["squash", "shorter-crop", "letterbox"] | None = None
    crop_borders: bool = False
    image_size: int | None = None
    """Pixels on each side of what the model sees; a multiple of its patch size."""
    num_heads: int | None = None
    """Attention heads of m2crl, for files whose heads are not 64 wide: the tensors do not tell."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Numbers inside the forward pass; auto picks what the device is fast at."""
    compile: bool = False
    """Pass the model through torch.compile: minutes at the start, faster afterwards."""


def check_request(request: BackboneRequest) -> None:
    """ConfigError for an unknown name, or a model that is neither here nor to be had, before anything large is imported."""
    if _find(request.name) == BACKBONES["hf"] and request.name != "hf":
        check_available(request.name)


def build_backbone(request: BackboneRequest) -> "Backbone":
    """The encoder that was asked for, loaded, in evaluation mode, on its device."""
    check_request(request)
    backbone_class: type[Backbone] = load_plugin(_find(request.name))
    return backbone_class.build(request)


def source_of(request: BackboneRequest) -> str:
    """Where the model comes from, for the record of a space: the whole path of a local file or folder, so that a command
    that is given elsewhere finds it again, else the id of a published model."""
    named = request.weights or Path(request.name)
    return str(named.absolute()) if request.weights is not None or named.is_dir() else request.name


def needs_weights(name: str) -> bool:
    """Whether the next --weights on a command line belongs to this backbone."""
    return name in TAKES_WEIGHTS


def _find(name: str) -> str:
    if name in BACKBONES:
        return BACKBONES[name]
    if "/" in name or Path(name).is_dir():
        return BACKBONES["hf"]
    close = difflib.get_close_matches(name, BACKBONES, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ConfigError(
        f"unknown backbone {name!r}: {hint}choose one of {', '.join(sorted(BACKBONES))}\n"
        "or a Hugging Face id with its owner (owner/model), or a folder that holds such a model"
    )
