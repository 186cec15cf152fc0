"""Checkpoints of Language-Guided-Endoscopy-Localization -> the `qle` head.

    language_guided_head.*, temporal_head.* (official names) -> build_published(...) -> QleHead with those weights

Whole training files also hold the backbone and the text tower (`vision_backbone.*`, `text_encoder.*`); those are loaded by
their own modules and are left out here by name, never by chance: every other tensor must be used.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from qle.compat.links import count_layers
from qle.errors import CheckpointError
from qle.heads.base import TokenShapes
from qle.heads.qle.head import QleConfig, QleHead
from qle.weights import load_exactly

GUIDED, TEMPORAL = "language_guided_head.", "temporal_head."
OTHER_PARTS = ("vision_backbone.", "text_encoder.")

_DECODER_LAYERS = f"{GUIDED}transformer_decoder.layers"
_ENCODER_LAYERS = f"{TEMPORAL}transformer_encoder.layers"
_PLAIN = {
    f"{GUIDED}fc_relevance": "relevance",
    f"{GUIDED}text_proj": "words",
    f"{GUIDED}confidence_module.confidence_network": "confidence",
    f"{TEMPORAL}fc_output": "temporal.out",
    f"{TEMPORAL}norm": "temporal.mixer.norm",
}
_DECODER_PARTS = {
    "self_attn": "self_attention",
    "multihead_attn": "word_attention",
    "linear1": "feed_forward.0",
    "linear2": "feed_forward.3",
    "norm1": "norms.0",
    "norm2": "norms.1",
    "norm3": "norms.2",
}
_ENCODER_PARTS = {
    "self_attn": "attention",
    "linear1": "feed_forward.0",
    "linear2": "feed_forward.3",
    "norm1": "norms.0",
    "norm2": "norms.1",
}


def head_from_official(state: Mapping[str, Tensor], *, num_heads: int = 8, grid: tuple[int, int]) -> QleHead:
    """The head with the official weights; sizes and variants are read off the tensors. `num_heads` leaves no trace there."""
    mine = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    mine = {name: tensor for name, tensor in mine.items() if not name.startswith(OTHER_PARTS)}
    try:
        config = _config(mine, num_heads)
        dim, text_dim = mine[f"{GUIDED}text_proj.weight"].shape
    except KeyError as error:
        raise CheckpointError(f"not a checkpoint of the QLE code: it has no tensor {error}") from error
    shapes = TokenShapes(streams={"patch": (*grid, dim)}, text_dim=text_dim, sentence_dim=text_dim)
    head = QleHead(config, shapes)
    renamed = dict(entry for name, tensor in mine.items() for entry in _rename(name, tensor))
    load_exactly(head, renamed, where="QLE checkpoint")
    return head.eval()


def _config(state: Mapping[str, Tensor], num_heads: int) -> QleConfig:
    num_outputs = len(state[f"{TEMPORAL}fc_output.bias"])
    if num_outputs not in (1, 2):
        raise CheckpointError(f"QLE checkpoint: {num_outputs} temporal outputs; expected 1 (logit) or 2 (evidence)")
    is_ssm = f"{TEMPORAL}layers.0.A_log" in state
    published = QleConfig.published(
        num_heads=num_heads,
        num_layers=count_layers(state, _DECODER_LAYERS),
        hidden=len(state[f"{_DECODER_LAYERS}.0.linear1.bias"]),
        output="evidence" if num_outputs == 2 else "logit",
        confidence="published" if any("confidence_module" in name for name in state) else "none",
        temporal="published-ssm" if is_ssm else "published",
    )
    if is_ssm:
        return _with_ssm_sizes(published, state)
    return replace(
        published,
        temporal_layers=count_layers(state, _ENCODER_LAYERS),
        temporal_hidden=len(state[f"{_ENCODER_LAYERS}.0.linear1.bias"]),
        temporal_heads=num_heads,
    )


def _with_ssm_sizes(config: QleConfig, state: Mapping[str, Tensor]) -> QleConfig:
    first = f"{TEMPORAL}layers.0"
    if f"{first}.B" not in state:
        raise CheckpointError(
            "QLE checkpoint: its temporal head is the Mamba of the mamba_ssm library, whose scan is not built in here\n"
            "only the state space block of the published code itself is known (SSM_USE_OFFICIAL_MAMBA = False)"
        )
    inner, state_dim = state[f"{first}.A_log"].shape
    return replace(
        config,
        temporal_layers=count_layers(state, f"{TEMPORAL}layers"),
        state_dim=state_dim,
        state_kernel=state[f"{first}.conv1d.weight"].shape[-1],
        state_expand=inner // len(state[f"{TEMPORAL}norm.bias"]),
    )


def _rename(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """Our names of one official tensor; a fused projection becomes two."""
    for official, parts, ours in (
        (f"{_DECODER_LAYERS}.", _DECODER_PARTS, "guided."),
        (f"{_ENCODER_LAYERS}.", _ENCODER_PARTS, "temporal.mixer.layers."),
    ):
        if name.startswith(official):
            number, part, leaf = name.removeprefix(official).split(".", 2)
            return _rename_leaf(f"{ours}{number}.{parts.get(part, part)}", leaf, tensor)
    if name.startswith(f"{TEMPORAL}layers."):
        return [(f"temporal.mixer.{name.removeprefix(TEMPORAL)}", tensor)]
    for official, mine in _PLAIN.items():
        if name.startswith(f"{official}."):
            return [(f"{mine}.{name.removeprefix(official + '.')}", tensor)]
    return [(name, tensor)]  # nothing of ours: load_exactly names it


def _rename_leaf(module: str, leaf: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    if leaf in ("in_proj_weight", "in_proj_bias"):
        kind = leaf.removeprefix("in_proj_")
        queries, keys, values = tensor.chunk(3)
        return [(f"{module}.queries.{kind}", queries), (f"{module}.keys_values.{kind}", torch.cat([keys, values]))]
    return [(f"{module}.{leaf.replace('out_proj', 'out')}", tensor)]
