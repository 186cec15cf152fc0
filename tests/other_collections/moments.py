"""Sets of the Moment-DETR family."""

import json
import random
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from qle.compat import UPSTREAMS
from qle.config import build_config
from qle.heads import head_class
from qle.heads.base import TokenShapes
from qle.heads.mesm.head import MesmHead
from qle.heads.moments import FEATURES, MomentHead
from qle.nn.detr.matcher import match
from tests.golden_mesm import mesm_answer, mesm_batch
from tests.golden_middle import found_outputs, watched
from tests.golden_moments import TERMS as TERM_NAMES
from tests.golden_moments import GoldenSet, golden_batch
from tests.golden_sets import kind_of
from tests.other_collections.mesm import mesm_config, mesm_inputs, mesm_options, mesm_targets, mesm_weights
from tests.other_collections.shared import randomised, write_case

TERMS = {"span": 7.0, "giou": 2.0, "label": 3.0, "saliency": 0.5}
"""Weights of losses that no published setting has."""


def official_head(kind: str, draw: random.Random, *, clip_dim: int, text_dim: int, **settings: Any) -> MomentHead:
    """A head of the Moment-DETR family with drawn sizes and options."""
    num_heads = draw.choice([1, 2, 4])
    drawn: dict[str, Any] = {
        "dim": 8 * num_heads * draw.choice([1, 2]), "num_heads": num_heads, "hidden": draw.randint(5, 40),
        "encoder_layers": draw.randint(1, 3), "decoder_layers": draw.randint(1, 4), "num_queries": draw.randint(3, 7),
        "projection_layers": draw.randint(1, 3), "word_positions": draw.random() < 0.5, "max_words": draw.randint(7, 12),
        "aux_loss": draw.random() < 0.5, "normalise_words": False, "published": True,
        "losses": {**TERMS, "background_weight": 0.3, "margin": 0.4, "costs": {"span": 5.0, "giou": 2.0, "label": 3.0}},
    }  # fmt: skip
    if kind == "moment-detr":
        drawn |= {"pre_norm": draw.random() < 0.5, "aligns": draw.random() < 0.5, "align_weight": 0.3}
    elif kind != "mesm":
        drawn["text_to_video_layers"] = draw.randint(1, 3)
    if kind == "mesm":
        drawn |= mesm_options(draw)
    if kind == "cg-detr":
        drawn |= {"num_dummies": draw.randint(1, 4), "num_prompts": 5, "kept_prompts": draw.randint(1, 3)}
        drawn |= {"dummy_layers": draw.randint(1, 2), "sentence_layers": 2, "moment_layers": draw.randint(1, 2)}
        drawn |= {"attention_weight": 0.5, "align_weight": 2.0, "distill_weight": 0.25}
    cls = head_class(kind.replace("-", "_"))
    shapes = TokenShapes(streams={FEATURES: (clip_dim,)}, text_dim=text_dim, sentence_dim=text_dim)
    return randomised(cls(build_config(cls.Config, drawn | settings, where=kind), shapes))


def moment_set(folder: Path, draw: random.Random) -> None:
    kind, clip_dim, text_dim = str(kind_of(folder.name)), draw.randint(5, 20), draw.randint(4, 16)
    head = official_head(kind, draw, clip_dim=clip_dim, text_dim=text_dim)
    save_file(import_module(UPSTREAMS[kind].module).official_state(head), folder / "weights.safetensors")
    (folder / "config.json").write_text(json.dumps(_moment_config(kind, head)))
    golden = GoldenSet.read(folder)
    for is_loss in (False, True):
        if isinstance(head, MesmHead):
            inputs = mesm_inputs(draw, clip_dim, text_dim, head.config)
            inputs |= mesm_targets(inputs, head.config, draw) if is_loss else {}
        else:
            inputs = moment_inputs(draw, clip_dim, text_dim, most_words=head.config.max_words)
            inputs |= moment_targets(inputs, draw) if is_loss else {}
        write_case(folder, draw, inputs | _moment_outputs(golden, inputs, head))


def _moment_config(kind: str, head: MomentHead) -> dict[str, Any]:
    """As the folders of our collection write it."""
    config = head.config
    weights: dict[str, float] = {f"loss_{name}": value for name, value in TERMS.items()}
    found = {
        "hidden_dim": config.dim, "num_heads": config.num_heads, "feedforward_dim": config.hidden,
        "encoder_layers": config.encoder_layers, "decoder_layers": config.decoder_layers,
        "num_queries": config.num_queries, "input_projection_layers": config.projection_layers,
        "pre_norm": getattr(config, "pre_norm", False), "use_text_position": config.word_positions,
        "max_text_length": config.max_words, "auxiliary_losses": config.aux_loss, "contrastive_align": False,
        "no_object_weight": config.losses.background_weight, "saliency_margin": config.losses.margin,
        "matcher": {f"cost_{ours}": getattr(config.losses.costs, name) for ours, name in _COSTS.items()},
    }  # fmt: skip
    if kind == "moment-detr" and config.aligns:
        weights["loss_contrastive_align"] = config.align_weight
        found |= {"contrastive_align": True, "temperature": config.align_temperature}
    if kind == "cg-detr":
        weights |= {"loss_ms_align": config.align_weight, "loss_distill": config.distill_weight}
        weights["loss_orthogonal_dummy"] = config.distill_weight
        found |= {"num_prompts": config.kept_prompts, "total_prompts": config.num_prompts}
        found |= {"attention_saliency_weight": config.attention_weight, "num_dummies": config.num_dummies}
    if isinstance(head, MesmHead):
        found |= mesm_config(head.config)
    layers = range(config.decoder_layers - 1 if config.aux_loss else 0)
    weights |= {f"{name}_{layer}": weight for name, weight in weights.items() for layer in layers}
    if isinstance(head, MesmHead):
        weights |= mesm_weights(head.config)
    return {**found, "loss_weights": {name: weight for name, weight in weights.items() if "saliency_" not in name}}


_COSTS = {"span": "span", "giou": "giou", "class": "label"}


def moment_inputs(draw: random.Random, clip_dim: int, text_dim: int, *, most_words: int) -> dict[str, Tensor]:
    """A padded batch of clips and words under the names of golden tensors, every item of a recording of its own."""
    items = draw.randint(2, 4)
    clips, words = ([draw.randint(3, most) for _ in range(items)] for most in (11, most_words))
    masks = [(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).float() for lengths in (clips, words)]
    return {
        "in.src_vid": torch.randn(items, max(clips), clip_dim) * masks[0][..., None], "in.src_vid_mask": masks[0],
        "in.src_txt": torch.randn(items, max(words), text_dim) * masks[1][..., None], "in.src_txt_mask": masks[1],
        "in.video_group": torch.arange(items),
    }  # fmt: skip


def moment_targets(inputs: Mapping[str, Tensor], draw: random.Random) -> dict[str, Tensor]:
    """What is true of such a batch: one or two moments of each item, ratings of every other clip, two pairs of clips."""
    mask = inputs["in.src_vid_mask"]
    counts, lengths = torch.tensor([draw.randint(1, 2) for _ in mask]), mask.sum(1).long()
    widths = torch.rand(int(counts.sum())) * 0.3 + 0.1
    pairs = torch.stack([torch.randint(int(length), (2, 2)) for length in lengths]).unbind(1)
    ratings = torch.randint(1, 13, mask.shape) * mask
    ratings[:, 1::2] = 0.0
    return {
        "target.spans": torch.stack([widths / 2 + torch.rand(len(widths)) * (1 - widths), widths], dim=-1),
        "target.num_spans": counts,
        "target.saliency_all_labels": ratings,
        "target.saliency_pos_labels": pairs[0].contiguous(),
        "target.saliency_neg_labels": pairs[1].contiguous(),
        "loss.total": torch.zeros(()),  # there are targets; the sum itself follows
    }


def _moment_outputs(golden: GoldenSet, inputs: Mapping[str, Tensor], head: MomentHead) -> dict[str, Tensor]:
    batch = mesm_batch(inputs) if isinstance(head, MesmHead) else golden_batch(golden.kind, inputs)
    with watched(head) as seen:
        output = mesm_answer(head, inputs) if isinstance(head, MesmHead) else head(batch)
    found = {name: part.detach() for name, part in found_outputs(golden, head, batch, output, seen).items()}
    if batch.targets is None:
        return found
    losses = head.loss(output, batch)
    head.zero_grad()
    losses.total.backward()
    weights, names = golden.config["loss_weights"], {ours: official for official, ours in TERM_NAMES.items()}
    names["align"] = "ms_align" if golden.kind == "cg-detr" else "contrastive_align"
    for name, value in losses.terms.items():
        base, _, layer = name.partition("_")
        term = f"loss_{names.get(base, base)}{'_' + layer if layer else ''}"
        if not name.startswith(("saliency", "attention")):
            found[f"loss.{term}"] = value.detach() / weights[term]
    taught = [value for name, value in losses.terms.items() if name.startswith(("saliency", "attention"))]
    found |= {"loss.loss_saliency": torch.stack(taught).sum().detach() / weights["loss_saliency"]}
    found["loss.total"] = losses.total.detach()
    for layer in ("", *(f"_{number}" for number in range(golden.num_aux))):
        found[f"loss.class_error{layer}"] = _class_error(output, batch, head, layer, golden.num_aux)
    slopes = {name: part.grad for name, part in head.named_parameters() if part.grad is not None}
    own = head.state_dict()
    official = golden.compat.official_state(head)
    for name, part in official.items():  # those that are one tensor of ours, too
        mine = next((key for key, value in own.items() if key in slopes and torch.equal(value, part)), None)
        if mine is not None:
            found[f"grad.{name}"] = slopes[mine].norm()
    return found


def _class_error(output: Any, batch: Any, head: MomentHead, layer: str, num_aux: int) -> Tensor:
    """Percentage of matched queries that are taken for background."""
    matches = match(output.logits, output.spans, batch.targets.spans, batch.targets.counts, head.config.losses.costs)
    number = int(layer[1:]) if layer else len(output.logits) - 1
    mine = matches.layer == number
    logits = output.logits[number, matches.item[mine], matches.query[mine]]
    return 100 * (logits.argmax(-1) != 0).float().mean()
