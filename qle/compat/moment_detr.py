"""Checkpoints of jayleicn/moment_detr <-> the `moment_detr` head.

official names and options -> head_from_official -> MomentDetrHead -> official_state -> official names

Sizes, pre-norm and alignment are read off the tensors; `settings` are the official options, of which those without a trace
in the tensors matter (nheads, use_txt_pos, dropout, weights of losses), and `published`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qle.compat import detr, links
from qle.compat.links import Link, tied
from qle.heads.moment_detr import MomentDetrConfig, MomentDetrHead

UPSTREAM = "moment_detr"
_OPTIONS = {"temperature": "align_temperature", "contrastive_align_loss_coef": "align_weight"}
_ALIGN = "contrastive_align_projection"


def head_from_official(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> MomentDetrHead:
    """The head with the official weights, every one of them accounted for."""
    state = detr.bare(state)

    def fields() -> dict[str, Any]:
        values = detr.options(settings, _OPTIONS)
        values |= {"pre_norm": "transformer.encoder.norm.weight" in state, "aligns": f"{_ALIGN}_query.bias" in state}
        return values | ({"align_dim": len(state[f"{_ALIGN}_query.bias"])} if values["aligns"] else {})

    return detr.build_head(MomentDetrHead, state, fields, lambda head: _links(head.config), UPSTREAM)


def official_state(head: MomentDetrHead) -> dict[str, Tensor]:
    """Every tensor under its official name."""
    return links.official_state(head, _links(head.config))


def official_options(head: MomentDetrHead) -> dict[str, Any]:
    """What the official program is told when it is built."""
    return detr.official_options(head.config, _OPTIONS) | {
        "pre_norm": head.config.pre_norm,
        "contrastive_align_loss": head.config.aligns,
    }


def _links(config: MomentDetrConfig) -> list[Link]:
    all_links = detr.inputs("inputs", config) + detr.predictions("predict") + tied("saliency_proj", "saliency")
    for layer in range(config.encoder_layers):
        name = f"encoder.layers.{layer}"
        all_links += detr.encoder_layer(f"transformer.{name}", name, has_slope=False)
    for layer in range(config.decoder_layers):
        all_links += detr.decoder_layer(f"transformer.decoder.layers.{layer}", f"decoder.layers.{layer}")
    all_links += tied("transformer.decoder.norm", "decoder.norm")
    all_links += links.alone("query_embed.weight", "decoder.places.weight")
    if config.pre_norm:
        all_links += tied("transformer.encoder.norm", "encoder.norm")
    if config.aligns:
        all_links += tied(f"{_ALIGN}_query", "align.queries") + tied(f"{_ALIGN}_txt", "align.words")
        for leaf, shape in (("weight", (config.align_dim, config.dim)), ("bias", (config.align_dim,))):
            clips = Link(official=(f"{_ALIGN}_vid.{leaf}",), ours=(f"align.clips.{leaf}",), unused=torch.zeros(shape))
            all_links.append(clips)
    return all_links
