"""Checkpoints of T-MASS <-> the `tmass` head.

    pool_frames.*, stochastic.*, clip.logit_scale (official names) <-> head_from_official, official_state

Whole training files also hold the CLIP towers (`clip.text_model.*`, ...), which belong to the text encoder and to the backbone of
the space. They are left out here by name and counted by `left_out`, so that an import can tell; every other tensor must be used.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qle.errors import CheckpointError
from qle.heads.base import TokenShapes
from qle.heads.retrieval import FRAMES
from qle.heads.tmass.head import TmassConfig, TmassHead
from qle.weights import load_exactly

TOWERS = "clip."
LOG_SCALE = "clip.logit_scale"
UNUSED = "stochastic.std_branch.learnable_scalar"
"""Uninitialised memory that their constructor leaves behind; never read, but their strict loading wants it."""

_PARTS = {
    "pool_frames.cross_attn.q_proj": "pooling.queries",
    "pool_frames.cross_attn.k_proj": "pooling.keys",
    "pool_frames.cross_attn.v_proj": "pooling.values",
    "pool_frames.cross_attn.out_proj": "pooling.out",
    "pool_frames.linear_proj": "pooling.linear",
    "pool_frames.layer_norm1": "pooling.enter_norm",
    "pool_frames.layer_norm2": "pooling.attended_norm",
    "pool_frames.layer_norm3": "pooling.pooled_norm",
    "stochastic.std_branch.linear_proj": "radius.linear",
}
_OURS = {ours: official for official, ours in _PARTS.items()}
_SETTINGS = {
    "num_mha_heads": "num_heads",
    "transformer_dropout": "dropout",
    "stochastic_prior": "prior",
    "stochastic_prior_std": "prior_std",
    "stochasic_trials": "trials",
    "support_loss_weight": "support_weight",
}
"""Official options that leave no trace in the tensors (the last but one is their spelling)."""
_OWN = ("dim", "projection", "scoring", "scale")
"""Fields of TmassConfig that the official program has no option for."""


def head_from_official(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> TmassHead:
    """The head with the official weights. `settings`: their options as a plain dict; sizes are read off the tensors."""
    mine = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    mine = {name: tensor for name, tensor in mine.items() if name == LOG_SCALE or not name.startswith(TOWERS)}
    mine.pop(UNUSED, None)
    try:
        dim, num_frames = mine["stochastic.std_branch.linear_proj.weight"].shape
        log_scale = mine[LOG_SCALE]
    except KeyError as error:
        raise CheckpointError(f"not a checkpoint of T-MASS: it has no tensor {error}") from error
    config = TmassConfig(**{"projection": "never", **_config(settings), "num_frames": num_frames})
    head = TmassHead(config, TokenShapes(streams={FRAMES: (dim,)}, text_dim=dim, sentence_dim=dim))
    renamed = {_rename(name): tensor for name, tensor in mine.items()}
    renamed |= {"log_scale": log_scale.reshape(()), "noise": head.noise}  # theirs is drawn at every evaluation
    load_exactly(head, renamed, where="T-MASS checkpoint")
    return head.eval()


def official_state(head: TmassHead) -> dict[str, Tensor]:
    """The inverse, under the official names; the towers are not part of it, and the unused scalar is 0."""
    if head.is_projected:
        raise CheckpointError(
            "this tmass head projects its texts and frames, which T-MASS cannot: it has no official form\n"
            "train with head.projection=never on frames and texts of one width"
        )
    official = {}
    for name, tensor in head.state_dict().items():
        part, _, leaf = name.rpartition(".")
        if part in _OURS:
            official[f"{_OURS[part]}.{leaf}"] = tensor.detach().clone()
    return official | {LOG_SCALE: head.log_scale.detach().clone(), UNUSED: torch.zeros(1)}


def input_dims(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Widths of frames and of texts, which are one."""
    dim = len(state["stochastic.std_branch.linear_proj.bias"])
    return dim, dim


def official_options(head: TmassHead) -> dict[str, Any]:
    """What the official program is told when it is built."""
    options = {official: getattr(head.config, ours) for official, ours in _SETTINGS.items()}
    options |= {"num_frames": head.config.num_frames, "embed_dim": len(head.radius.linear.bias)}
    return options | {name: getattr(head.config, name) for name in _OWN}


def left_out(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of the tensors of a whole training file that are not the head's: those of the CLIP towers, and the unused scalar."""
    names = (name.removeprefix("module.") for name in state)
    return tuple(name for name in names if name == UNUSED or (name.startswith(TOWERS) and name != LOG_SCALE))


def _config(settings: Mapping[str, Any]) -> dict[str, Any]:
    names = _SETTINGS | {name: name for name in _OWN}
    given = {ours: settings[official] for official, ours in names.items() if settings.get(official) is not None}
    converted = {"dropout": float, "prior_std": float, "support_weight": float}
    return {name: converted.get(name, lambda value: value)(value) for name, value in given.items()}


def _rename(name: str) -> str:
    part, _, leaf = name.rpartition(".")
    if name == LOG_SCALE:
        return "log_scale"
    return f"{_PARTS[part]}.{leaf}" if part in _PARTS else name  # nothing of ours: load_exactly names it
