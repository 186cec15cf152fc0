"""Checkpoints of wjun0830/QD-DETR <-> the `qd_detr` head, with and without audio (audio only widens the clips).

official names and options -> head_from_official -> QdDetrHead -> official_state -> official names
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from qle.compat import detr, links
from qle.compat.links import Link
from qle.heads.qd_detr import QdDetrConfig, QdDetrHead

UPSTREAM = "QD-DETR"


def head_from_official(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> QdDetrHead:
    """The head with the official weights, every one of them accounted for. `settings` are the official options, of which those
    without a trace in the tensors matter (nheads, use_txt_pos, dropout, weights of losses), and `published`."""
    state = detr.without_alignment(detr.bare(state))

    def fields() -> dict[str, Any]:
        listens = links.count_layers(state, "transformer.t2v_encoder.layers")
        return detr.options(settings) | {"text_to_video_layers": listens}

    return detr.build_head(QdDetrHead, state, fields, lambda head: _links(head.config), UPSTREAM)


def official_state(head: QdDetrHead) -> dict[str, Tensor]:
    """Every tensor under its official name."""
    return links.official_state(head, _links(head.config))


def official_options(head: QdDetrHead) -> dict[str, Any]:
    """What the official program is told when it is built."""
    return detr.official_options(head.config) | {"t2v_layers": head.config.text_to_video_layers}


def _links(config: QdDetrConfig) -> list[Link]:
    all_links = detr.inputs("inputs", config)
    for layer in range(config.text_to_video_layers):
        all_links += detr.text_to_video_layer(f"transformer.t2v_encoder.layers.{layer}", f"listen.{layer}")
    return all_links + detr.token_detr("detr", config)
