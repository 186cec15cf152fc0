"""What official checkpoints of the Moment-DETR family have in common: names of layers, sizes, options.

Every file of an upstream beside this one puts its table of links together from these pieces.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from qle.compat.links import Link, alone, count_layers, load_official, tied
from qle.config import build_config
from qle.errors import CheckpointError
from qle.heads.base import TokenShapes
from qle.heads.moments import FEATURES, MomentHead
from qle.nn.detr.config import DetrConfig

OPTIONS = {
    "nheads": "num_heads",
    "dropout": "dropout",
    "input_dropout": "input_dropout",
    "use_txt_pos": "word_positions",
    "aux_loss": "aux_loss",
    "published": "published",
    "normalise_words": "normalise_words",
}
"""Official options that leave no trace in the tensors, and two of our own -> fields of DetrConfig."""
LOSS_OPTIONS = {
    "span_loss_coef": "span",
    "giou_loss_coef": "giou",
    "label_loss_coef": "label",
    "lw_saliency": "saliency",
    "eos_coef": "background_weight",
    "saliency_margin": "margin",
    "rank_temperature": "rank_temperature",
    "rank_divisor": "rank_divisor",
}
"""Fields of SetLossConfig; the last two are constants of the official programs, and so under our own names."""
COST_OPTIONS = {"set_cost_span": "span", "set_cost_giou": "giou", "set_cost_class": "label"}


def attention(official: str, ours: str) -> list[Link]:
    """Packed projections against queries and (keys, values)."""
    packed = [
        Link(official=(f"{official}.in_proj_{leaf}",), ours=(f"{ours}.queries.{leaf}", f"{ours}.keys_values.{leaf}"))
        for leaf in ("weight", "bias")
    ]
    return packed + tied(f"{official}.out_proj", f"{ours}.out")


def feed_forward(official: str, ours: str, *, has_slope: bool) -> list[Link]:
    """`official` is the layer: linear1, linear2 and the slope of its PReLU lie beside everything else."""
    links = tied(f"{official}.linear1", f"{ours}.0") + tied(f"{official}.linear2", f"{ours}.3")
    return links + (alone(f"{official}.activation.weight", f"{ours}.1.weight") if has_slope else [])


def encoder_layer(official: str, ours: str, *, has_slope: bool) -> list[Link]:
    links = attention(f"{official}.self_attn", f"{ours}.attention")
    links += feed_forward(official, f"{ours}.feed_forward", has_slope=has_slope)
    return links + _norms(official, ours, 2)


def text_to_video_layer(official: str, ours: str) -> list[Link]:
    links = attention(f"{official}.self_attn", f"{ours}.attention")
    return links + absorb(official, f"{ours}.absorb")


def absorb(official: str, ours: str) -> list[Link]:
    """Feed-forward and norms of a layer in which clips listen."""
    links = feed_forward(official, f"{ours}.feed_forward", has_slope=True)
    return links + tied(f"{official}.norm1", f"{ours}.norms.0") + tied(f"{official}.norm2", f"{ours}.norms.1")


def decoder_layer(official: str, ours: str) -> list[Link]:
    links = attention(f"{official}.self_attn", f"{ours}.self_attention")
    links += attention(f"{official}.multihead_attn", f"{ours}.memory_attention")
    links += feed_forward(official, f"{ours}.feed_forward", has_slope=False)
    return links + _norms(official, ours, 3)


def reference_decoder(official: str, ours: str, num_layers: int) -> list[Link]:
    """Without the anchors, which lie elsewhere."""
    links = tied(f"{official}.norm", f"{ours}.norm")
    for theirs, name, depth in (
        ("ref_point_head", "place", 2), ("query_scale", "place_gain", 2), ("ref_anchor_head", "width_gain", 2),
        ("bbox_embed", "refine", 3),
    ):  # fmt: skip
        links += mlp(f"{official}.{theirs}", f"{ours}.{name}", depth)
    for layer in range(num_layers):
        links += _reference_layer(f"{official}.layers.{layer}", f"{ours}.layers.{layer}", is_first=layer == 0)
    return links


def _reference_layer(official: str, ours: str, *, is_first: bool) -> list[Link]:
    around, there = f"{ours}.around", f"{ours}.there"
    parts = [
        (("sa_qcontent_proj", "sa_kcontent_proj", "sa_v_proj"), f"{around}.content"),
        (("sa_qpos_proj", "sa_kpos_proj"), f"{around}.place"),
        (("self_attn.out_proj",), f"{around}.out"),
        (("ca_qcontent_proj",), f"{there}.content"),
        (("ca_qpos_sine_proj",), f"{there}.sharp_place"),
        (("ca_kcontent_proj", "ca_v_proj"), f"{there}.keys_values"),
        (("ca_kpos_proj",), f"{there}.key_place"),
        (("cross_attn.out_proj",), f"{there}.out"),
    ]
    if is_first:
        parts.append((("ca_qpos_proj",), f"{there}.place"))
    links = [link for names, mine in parts for link in tied([f"{official}.{name}" for name in names], mine)]
    return links + feed_forward(official, f"{ours}.feed_forward", has_slope=True) + _norms(official, ours, 3)


def mlp(official: str, ours: str, num_layers: int) -> list[Link]:
    numbers = range(num_layers)
    return [link for n in numbers for link in tied(f"{official}.layers.{n}", f"{ours}.layers.{n}")]


def projection(official: str, ours: str, num_layers: int) -> list[Link]:
    """LayerNorm and linear of each layer."""
    links: list[Link] = []
    for number in range(num_layers):
        links += tied(f"{official}.{number}.LayerNorm", f"{ours}.norms.{number}")
        links += tied(f"{official}.{number}.net.1", f"{ours}.linears.{number}")
    return links


def inputs(ours: str, config: DetrConfig) -> list[Link]:
    """Links of the tensors of MomentInputs."""
    links = projection("input_vid_proj", f"{ours}.clips", config.projection_layers)
    links += projection("input_txt_proj", f"{ours}.words", config.projection_layers)
    return links + word_position_links(f"{ours}.word_places", config.max_words, config.dim)


def word_position_links(ours: str, max_words: int, dim: int) -> list[Link]:
    """The table is in every official file, used or not."""
    official = "txt_position_embed"
    return [
        unused(f"{official}.position_embeddings.weight", f"{ours}.table.weight", torch.zeros(max_words, dim)),
        unused(f"{official}.LayerNorm.weight", f"{ours}.norm.weight", torch.ones(dim)),
        unused(f"{official}.LayerNorm.bias", f"{ours}.norm.bias", torch.zeros(dim)),
    ]


def predictions(ours: str) -> list[Link]:
    """Links of the tensors of SpanPredictor."""
    return tied("class_embed", f"{ours}.label") + mlp("span_embed", f"{ours}.span", 3)


def token_detr(ours: str, config: DetrConfig) -> list[Link]:
    """Links of the tensors of TokenDetr."""
    links = alone("global_rep_token", f"{ours}.encoder.token") + alone("global_rep_pos", f"{ours}.encoder.place")
    for layer in range(config.encoder_layers):
        name = f"encoder.layers.{layer}"
        links += encoder_layer(f"transformer.{name}", f"{ours}.encoder.{name}", has_slope=True)
    links += reference_decoder("transformer.decoder", f"{ours}.decoder", config.decoder_layers)
    links += alone("query_embed.weight", f"{ours}.decoder.anchors.weight") + predictions(f"{ours}.predict")
    for number, name in (("1", "clips"), ("2", "token")):
        links += tied(f"saliency_proj{number}", f"{ours}.saliency.{name}")
    return links


def unused(official: str, ours: str, value: Tensor) -> Link:
    """A tensor that our head has in some settings only, or never; the official file gets `value` where it has not."""
    return Link(official=(official,), ours=(ours,), unused=value)


def _norms(official: str, ours: str, count: int) -> list[Link]:
    numbers = range(count)
    return [link for n in numbers for link in tied(f"{official}.norm{n + 1}", f"{ours}.residuals.{n}.norm")]


def bare(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefix that training on several devices leaves."""
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def without_alignment(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors but for projections that align queries with the words of the memory (contrastive_align_loss). The memory of
    QD-DETR and CG-DETR holds clips alone, so that their term is a constant and nothing else reads them."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("contrastive_align_projection_")}


def sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Fields of DetrConfig that the tensors tell."""
    if len(state["span_embed.layers.2.bias"]) != 2:
        raise CheckpointError(
            "this checkpoint predicts spans as classes of clips (span_loss_type ce), which its own program cannot read out\n"
            "only span_loss_type l1 is known here"
        )
    return {
        "dim": state["class_embed.weight"].shape[1],
        "hidden": len(state["transformer.encoder.layers.0.linear1.bias"]),
        "encoder_layers": count_layers(state, "transformer.encoder.layers"),
        "decoder_layers": count_layers(state, "transformer.decoder.layers"),
        "num_queries": len(state["query_embed.weight"]),
        "projection_layers": count_layers(state, "input_vid_proj"),
        "max_words": len(state["txt_position_embed.position_embeddings.weight"]),
    }


def options(settings: Mapping[str, Any], more: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Fields of DetrConfig that official options tell; `more` are names of one upstream alone."""
    fields = _renamed(settings, OPTIONS | dict(more or {}))
    if settings.get("no_norm_tfeat"):
        fields["normalise_words"] = False
    costs = _renamed(settings, COST_OPTIONS)
    losses = _renamed(settings, LOSS_OPTIONS) | ({"costs": costs} if costs else {})
    return fields | ({"losses": losses} if losses else {})


SIZE_OPTIONS = {
    "hidden_dim": "dim",
    "dim_feedforward": "hidden",
    "enc_layers": "encoder_layers",
    "dec_layers": "decoder_layers",
    "num_queries": "num_queries",
    "n_input_proj": "projection_layers",
    "max_q_l": "max_words",
}
"""Official options that the tensors tell as well, for whoever builds the official model."""


def official_options(config: DetrConfig, more: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The inverse of `options`, sizes included."""
    names = OPTIONS | SIZE_OPTIONS | dict(more or {})
    options = {theirs: getattr(config, mine) for theirs, mine in names.items()}
    options |= {theirs: getattr(config.losses, mine) for theirs, mine in LOSS_OPTIONS.items()}
    options |= {theirs: getattr(config.losses.costs, mine) for theirs, mine in COST_OPTIONS.items()}
    return options | {"no_norm_tfeat": not config.normalise_words, "span_loss_type": "l1"}


def _renamed(settings: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {mine: settings[theirs] for theirs, mine in names.items() if theirs in settings}


def input_dims(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Widths of clips and of words."""
    return len(state["input_vid_proj.0.LayerNorm.bias"]), len(state["input_txt_proj.0.LayerNorm.bias"])


Built = TypeVar("Built", bound=MomentHead)


def build_head(
    kind: type[Built],
    state: Mapping[str, Tensor],
    fields: Callable[[], Mapping[str, Any]],
    links_of: Callable[[Built], Sequence[Link]],
    upstream: str,
) -> Built:
    """A head of that kind with the official weights. `fields` are those of its config beside the sizes that all have; what
    they look for and do not find makes it no checkpoint of `upstream`."""
    where = f"checkpoint of {upstream}"
    try:
        settings = sizes(state) | dict(fields())
        clip_dim, text_dim = input_dims(state)
    except KeyError as error:
        raise CheckpointError(f"not a {where}: it has no tensor {error}") from error
    shapes = TokenShapes(streams={FEATURES: (clip_dim,)}, text_dim=text_dim, sentence_dim=text_dim)
    head = kind(build_config(kind.Config, settings, where=where), shapes)
    load_official(head, state, links_of(head), where=where)
    return head.eval()
