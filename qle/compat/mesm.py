"""Checkpoints of lntzm/MESM <-> the `mesm` head.

official names and options -> head_from_official -> MesmHead -> official_state -> official names

Official files count the classes of words and do not say which word is which: that stands in the word counts of the dataset
(`CLIP_tokenized_count.txt`), whose first numbers may be given as `settings["vocabulary"]`. Text encoders are no part of them.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from qle.compat import detr, links
from qle.compat.links import Link, alone, tied
from qle.heads.base import TokenShapes
from qle.heads.mesm.head import MesmHead
from qle.heads.moments import FEATURES

UPSTREAM = "MESM"
CLIP_MARKS = (49406, 49407)
"""Begin and end in CLIP's vocabulary, which official classes have where words come from CLIP."""
_OPTIONS = {
    "normalize_txt": "normalise_words",
    "use_triplet": "has_margin",
    "loss_recfw_coef": "word_weight",
    "loss_recss_coef": "sentence_weight",
    "recss_tau": "sentence_temperature",
    "iou_gamma": "same_giou",
    "sentence_clips": "sentence_clips",
    **{
        name: name
        for name in ("sees_token", "label_smoothing", "vocabulary_size", "function_words")  # not theirs to choose
    },
}
_LOSS_OPTIONS = {
    "loss_span_coef": "span",
    "loss_giou_coef": "giou",
    "loss_label_coef": "label",
    "loss_saliency_coef": "saliency",
    "rank_coef": "rank_divisor",
}
_ENHANCE, _ALIGN = "enhance_encoder.t2v_encoder.layers", "t2v_encoder.t2v_encoder.layers"
_SENTENCE = "ss_reconstructor.recon_trans.layers"


def head_from_official(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> MesmHead:
    """The head with the official weights, every one of them accounted for. `settings` are the official options, of which those
    without a trace in the tensors matter (nheads, use_txt_pos, dataset_name, weights of losses), and `published`,
    `vocabulary`, `marks`."""
    state = {name: tensor for name, tensor in detr.bare(state).items() if not name.startswith("text_encoder.")}

    def fields() -> dict[str, Any]:
        return _sizes(state, settings) | _options(settings)

    return detr.build_head(MesmHead, state, fields, _links, UPSTREAM)


def official_state(head: MesmHead) -> dict[str, Tensor]:
    """Every tensor under its official name; zeros for those that the official program holds and does not use."""
    return links.official_state(head, _links(head))


def official_options(head: MesmHead) -> dict[str, Any]:
    """What the official program is told when it is built; the vocabulary and its marks are ours."""
    config = head.config
    options = detr.official_options(config, _OPTIONS)
    options |= {theirs: getattr(config.losses, mine) for theirs, mine in _LOSS_OPTIONS.items()}
    options |= {
        "function_words": list(config.function_words),
        "rec_fw": config.enhances,
        "rec_ss": config.sentence_layers > 0,
        "share_MLP": not config.has_word_part,
        "num_recfw_layers": config.enhance_layers,
        "num_recss_layers": config.sentence_layers,
        "t2v_layers": config.align_layers,
        "max_words_l": config.max_words,
        "vocab_size": len(config.vocabulary),
        "tokenizer_type": "CLIP" if config.marks else "GloVeNLTK",
    }
    return options | {"vocabulary": list(config.vocabulary), "marks": list(config.marks)}


def _shapes(clip_dim: int, text_dim: int) -> TokenShapes:
    return TokenShapes(streams={FEATURES: (clip_dim,)}, text_dim=text_dim, sentence_dim=text_dim)


def _sizes(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Any]:
    sentence_layers, enhances = links.count_layers(state, _SENTENCE), "masked_token" in state
    sizes: dict[str, Any] = {
        "enhances": enhances,
        "enhance_layers": links.count_layers(state, _ENHANCE),
        "has_word_part": f"{_ENHANCE}.0.linear1_1.weight" in state,
        "align_layers": links.count_layers(state, _ALIGN),
        "sentence_layers": sentence_layers,
        # The made-up sentence has a place in the table of words.
        "max_words": len(state["txt_position_embed.position_embeddings.weight"]) - (sentence_layers > 0),
    }
    if enhances:
        is_clip = settings.get("tokenizer_type", "CLIP") == "CLIP"
        sizes["marks"] = settings.get("marks", CLIP_MARKS if is_clip else ())
        num_words = len(state["output_txt_proj.1.bias"]) - 1 - len(sizes["marks"])
        sizes["vocabulary"] = settings.get("vocabulary", (-1,) * num_words)
    return sizes


def _options(settings: Mapping[str, Any]) -> dict[str, Any]:
    options = detr.options(settings, _OPTIONS)
    losses = {mine: settings[theirs] for theirs, mine in _LOSS_OPTIONS.items() if theirs in settings}
    if losses:
        options["losses"] = options.get("losses", {}) | losses
    if settings.get("dataset_name") == "qvhighlights" and options.get("published"):
        options.setdefault("sentence_clips", "source")
    return options


def _links(head: MesmHead) -> list[Link]:
    config = head.config
    with_sentence = replace(config, max_words=config.max_words + (config.sentence_layers > 0))
    all_links = detr.inputs("inputs", with_sentence)
    for layer in range(config.enhance_layers):
        all_links += _mutual_layer(f"{_ENHANCE}.{layer}", f"enhance.{layer}", has_word_part=config.has_word_part)
    for layer in range(config.align_layers):
        all_links += detr.text_to_video_layer(f"{_ALIGN}.{layer}", f"align.{layer}")
    for layer in range(config.sentence_layers):
        all_links += detr.text_to_video_layer(f"{_SENTENCE}.{layer}", f"sentence.layers.{layer}")
    if config.sentence_layers:
        all_links += alone("ss_reconstructor.masked_sent_token", "sentence.blank")
        all_links += detr.projection("ss_reconstructor.output_sent_proj", "sentence_out", 2)
    all_links += detr.token_detr("detr", config)
    if config.enhances:
        all_links += alone("masked_token", "words.hole") + alone("unknown_token", "words.unknown")
        all_links += detr.projection("output_txt_proj", "words.enter", 1) + tied("output_txt_proj.1", "words.name")
    return _with_spares(all_links, head)


def _mutual_layer(official: str, ours: str, *, has_word_part: bool) -> list[Link]:
    all_links = detr.text_to_video_layer(official, f"{ours}.listen")
    if has_word_part:
        for theirs, mine in (
            ("linear1_1", "widen"), ("linear2_1", "narrow"), ("norm1_1", "norms.0"), ("norm2_1", "norms.1"),
        ):  # fmt: skip
            all_links += tied(f"{official}.{theirs}", f"{ours}.word_part.{mine}")
    return all_links


def _with_spares(all_links: list[Link], head: MesmHead) -> list[Link]:
    """Links whose tensors this head can do without get zeros of the shape that a published head has."""
    own = head.state_dict()
    clip_dim, text_dim = (len(own[f"inputs.{name}.norms.0.bias"]) for name in ("clips", "words"))
    vocabulary = head.config.vocabulary or (-1,)
    twin = replace(head.config, published=True, vocabulary=vocabulary, word_weight=head.config.word_weight or 1.0)
    with torch.device("meta"):
        whole = MesmHead(twin, _shapes(clip_dim, text_dim)).state_dict()
    return [
        link
        if link.ours[0] in own
        else replace(link, unused=torch.cat([torch.zeros(whole[name].shape) for name in link.ours]))
        for link in all_links
    ]
