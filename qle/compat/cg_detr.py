"""Checkpoints of wjun0830/CGDETR <-> the `cg_detr` head.

official names and options -> head_from_official -> CgDetrHead -> official_state -> official names
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qle.compat import detr, links
from qle.compat.links import Link, alone, tied
from qle.heads.cg_detr.head import CgDetrHead

UPSTREAM = "CG-DETR"
_OPTIONS = {
    "num_prompts": "kept_prompts",
    "lw_wattn": "attention_weight",
    "lw_ms_align": "align_weight",
    "lw_distill": "distill_weight",
}
_ENCODERS = {
    "txtproj_encoder": ("dummy_encoder", "dummy_layers"),
    "scls_encoder": ("sentence_encoder", "sentence_layers"),
    "transformer.mcls_encoder": ("moment_encoder", "moment_layers"),
    "transformer.encoder": ("encoder", "encoder_layers"),
}
"""Official name -> our name, and the setting that counts its layers."""
_TENSORS = {
    "token_type_embeddings.weight": "kinds",
    "dummy_rep_token": "dummies",
    "dummy_rep_pos": "dummy_positions",
    "sent_rep_token": "sentence_token",
    "sent_rep_pos": "sentence_position",
    "moment_rep_token": "moment_token",
    "moment_rep_pos": "moment_position",
    "global_rep_token": "token.prompts",
    "global_rep_pos": "token.position",
    "query_embed.weight": "decoder.anchors.weight",
}
_LISTEN = "transformer.t2v_encoder.layers"
_UNREAD = "txt_proj_linear"
"""A projection of words that every official file holds and nothing reads."""


def head_from_official(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> CgDetrHead:
    """The head with the official weights, every one of them accounted for. `settings` are the official options, of which those
    without a trace in the tensors matter (nheads, num_prompts, weights of losses), and `published`."""
    state = detr.without_alignment(detr.bare(state))

    def fields() -> dict[str, Any]:
        values = detr.options(settings, _OPTIONS)
        values |= {count: links.count_layers(state, f"{name}.layers") for name, (_, count) in _ENCODERS.items()}
        values["text_to_video_layers"] = links.count_layers(state, _LISTEN)
        return values | {"num_dummies": len(state["dummy_rep_token"]), "num_prompts": len(state["global_rep_token"])}

    return detr.build_head(CgDetrHead, state, fields, _links, UPSTREAM)


def official_state(head: CgDetrHead) -> dict[str, Tensor]:
    """Every tensor under its official name."""
    return links.official_state(head, _links(head))


def official_options(head: CgDetrHead) -> dict[str, Any]:
    """What the official program is told when it is built."""
    sizes = {count: getattr(head.config, count) for count in ("dummy_layers", "moment_layers", "num_dummies")}
    sizes |= {
        "sent_layers": head.config.sentence_layers,
        "t2v_layers": head.config.text_to_video_layers,
        "total_prompts": head.config.num_prompts,
    }
    return detr.official_options(head.config, _OPTIONS) | sizes


def _links(head: CgDetrHead) -> list[Link]:
    config, text_dim = head.config, len(head.state_dict()["inputs.words.norms.0.bias"])
    all_links = detr.inputs("inputs", config) + detr.predictions("predict")
    for theirs, (ours, count) in _ENCODERS.items():
        for layer in range(getattr(config, count)):
            all_links += detr.encoder_layer(f"{theirs}.layers.{layer}", f"{ours}.layers.{layer}", has_slope=True)
    for layer in range(config.text_to_video_layers):
        all_links += tied(f"{_LISTEN}.{layer}.self_attn.out_proj", f"listen.{layer}.attention.out")
        all_links += detr.absorb(f"{_LISTEN}.{layer}", f"listen.{layer}.absorb")
    for theirs, ours in _TENSORS.items():
        all_links += alone(theirs, ours)
    all_links += detr.reference_decoder("transformer.decoder", "decoder", config.decoder_layers)
    all_links += tied("saliency_proj1", "saliency.clips") + tied("saliency_proj2", "saliency.token")
    unread = {
        "LayerNorm.weight": torch.ones(text_dim),
        "LayerNorm.bias": torch.zeros(text_dim),
        "net.1.weight": torch.zeros(config.dim, text_dim),
        "net.1.bias": torch.zeros(config.dim),
    }
    return all_links + [detr.unused(f"{_UNREAD}.{leaf}", f"unread.{leaf}", value) for leaf, value in unread.items()]
