"""The files that M2CRL-type encoders come in, read into one canonical set of tensors.

    official pre-training file, Endo-FM, SVT, TimeSformer, 2-D DINO ViT --read_encoder--> names -> tensors, config

All of them are the same network (divided space-time attention, TimeSformer 2021); they differ in where in the file it lies and
in what lies beside it. Only the wrapping is undone here: after that the set of tensors is exactly the encoder's or refused.
A 2-D ViT has no temporal path. It gets one that adds zero, and so runs as the per-frame model that it is.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qle.errors import CheckpointError
from qle.weights import check_tensors, load_file, state_digest

ENTRIES = ("teacher", "student", "model", "model_state", "state_dict")
"""Where the network may lie in the file, in the order in which they are tried; official downstream code takes the teacher."""
PREFIXES = ("backbone.", "model.")
"""Where one of these is found, the encoder is what carries it and the rest are training heads."""
BESIDE = ("head.", "decoder.")
"""Classifier and reconstruction head: known company of the encoder, not part of it."""
HEAD_DIM = 64
NUM_FRAMES_2D = 8
"""Clip length given to 2-D weights, which never saw a clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class M2crlConfig:
    """Sizes of the network, all of them read off the tensors except the number of heads."""

    width: int
    depth: int
    num_heads: int
    mlp_width: int
    patch_size: int
    grid: int
    """Patches on each side of the trained picture: 14 for 224 pixels."""
    num_frames: int
    """Slots of the time embedding: the clip length of the training."""

    @property
    def image_size(self) -> int:
        return self.grid * self.patch_size


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFile:
    """What was found in a file."""

    state: dict[str, Tensor]
    """The canonical tensors, `temporal_fc` unfolded, in the numbers of the file."""
    config: M2crlConfig
    layout: str
    """Which wrapping was undone, e.g. "teacher/backbone."."""
    is_video: bool
    """False: 2-D weights with a temporal path of zeros."""
    digest: str
    """Digest of `state`, the same whatever file it came in."""


def read_encoder(path: Path, *, entry: str | None = None, num_heads: int | None = None) -> EncoderFile:
    """Open, unwrap, complete and check. `entry` insists on one part of a training file, e.g. "student"."""
    tensors, layout = _unwrap(load_file(path), entry, path)
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith(BESIDE) and name != "masked_embed"}
    is_video = any(".temporal_" in name for name in state)
    config = _infer(state, num_heads, path)
    weight = state["patch_embed.proj.weight"]
    if weight.ndim in (2, 5) and weight.numel() == config.width * 3 * config.patch_size**2:
        # Some write it as a matrix, some with a time axis of one.
        state["patch_embed.proj.weight"] = weight.reshape(config.width, 3, config.patch_size, config.patch_size)
    if not is_video:
        state = _with_silent_time(state, config)
    check_tensors(expected_shapes(config), state, where=str(path))
    return EncoderFile(state=state, config=config, layout=layout, is_video=is_video, digest=state_digest(state))


def expected_shapes(config: M2crlConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of an encoder of that size: 7 and 20 a block."""
    width, hidden = config.width, config.mlp_width
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + config.grid**2, width),
        "time_embed": (1, config.num_frames, width),
        "patch_embed.proj.weight": (width, 3, config.patch_size, config.patch_size),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for block in range(config.depth):
        for norm in ("norm1", "temporal_norm1", "norm2"):
            shapes |= {f"blocks.{block}.{norm}.{kind}": (width,) for kind in ("weight", "bias")}
        linears = {"temporal_fc": (width, width), "mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
        for attention in ("attn", "temporal_attn"):
            linears |= {f"{attention}.qkv": (3 * width, width), f"{attention}.proj": (width, width)}
        for name, shape in linears.items():
            shapes |= {f"blocks.{block}.{name}.weight": shape, f"blocks.{block}.{name}.bias": shape[:1]}
    return shapes


def fold_temporal(state: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The same network without `temporal_fc`, which is a linear layer straight after a linear layer: W = W_fc W_proj,
    b = W_fc b_proj + b_fc. Multiplied in float64; saves 1/17 of the arithmetic of a forward pass."""
    folded = dict(state)
    for block in range(depth):
        proj, outer = f"blocks.{block}.temporal_attn.proj", f"blocks.{block}.temporal_fc"
        outer_weight, outer_bias = folded.pop(f"{outer}.weight").double(), folded.pop(f"{outer}.bias").double()
        bias = outer_weight @ state[f"{proj}.bias"].double() + outer_bias
        folded[f"{proj}.weight"] = (outer_weight @ state[f"{proj}.weight"].double()).float()
        folded[f"{proj}.bias"] = bias.float()
    return folded


def _unwrap(loaded: Any, entry: str | None, path: Path) -> tuple[dict[str, Tensor], str]:
    """The named tensors of the encoder and its training heads, and how they were found."""
    layout = ""
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, expected named tensors\ncheck --weights")
    if entry is not None and not isinstance(loaded.get(entry), Mapping):
        raise CheckpointError(
            f"{path}: has no entry {entry!r}; found {_some(loaded)}\ndrop the choice of entry, or name another file"
        )
    for name in ENTRIES if entry is None else (entry,):
        if isinstance(loaded.get(name), Mapping):
            loaded, layout = loaded[name], f"{name}/"
            break
    state = {str(name).removeprefix("module."): value for name, value in loaded.items() if isinstance(value, Tensor)}
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            layout += prefix
            break
    if not {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"} <= state.keys():
        raise CheckpointError(
            f"{path}: no M2CRL-type encoder in it (cls_token, pos_embed, patch_embed, blocks); found {_some(state or loaded)}\n"
            "pass the official pre-training file, or Endo-FM, SVT, TimeSformer or DINO ViT weights"
        )
    return state, layout or "bare"


def _infer(state: Mapping[str, Tensor], num_heads: int | None, path: Path) -> M2crlConfig:
    """Sizes from counts, not from axes: what is shaped otherwise shows in the comparison that follows."""
    width = max(1, state["cls_token"].numel())
    blocks = [int(match.group(1)) for name in state if (match := re.match(r"blocks\.(\d{1,3})\.", name))]
    time_embed = state.get("time_embed")
    if num_heads is None and width % HEAD_DIM:
        raise CheckpointError(
            f"{path}: width {width} is not a multiple of {HEAD_DIM}, the number of heads is not in the tensors\npass --num-heads"
        )
    num_heads = num_heads or width // HEAD_DIM
    if width % num_heads:
        raise CheckpointError(
            f"{path}: {num_heads} heads do not divide the width {width}\npass the number it was trained with"
        )
    return M2crlConfig(
        width=width,
        depth=1 + max(blocks),
        num_heads=num_heads,
        mlp_width=state["blocks.0.mlp.fc1.weight"].numel() // width,
        patch_size=math.isqrt(state["patch_embed.proj.weight"].numel() // (3 * width)),
        grid=math.isqrt(max(0, state["pos_embed"].numel() // width - 1)),
        num_frames=NUM_FRAMES_2D if time_embed is None else time_embed.numel() // width,
    )


def _with_silent_time(state: Mapping[str, Tensor], config: M2crlConfig) -> dict[str, Tensor]:
    """2-D weights with the temporal tensors that initialise a video model: attention copied, its output layer zero."""
    completed = {"time_embed": torch.zeros(1, config.num_frames, config.width)} | dict(state)
    for name, tensor in state.items():
        for source, target in ((".attn.", ".temporal_attn."), (".norm1.", ".temporal_norm1.")):
            if source in name:
                completed[name.replace(source, target)] = tensor
    for block in range(config.depth):
        completed[f"blocks.{block}.temporal_fc.weight"] = torch.zeros(config.width, config.width)
        completed[f"blocks.{block}.temporal_fc.bias"] = torch.zeros(config.width)
    return completed


def _some(names: Mapping[Any, Any]) -> str:
    shown = [repr(str(name)) for name in list(names)[:4]]
    return ", ".join(shown) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if shown else "nothing"
