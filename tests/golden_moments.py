"""Golden numbers of the Moment-DETR family, read into the types of the package: options, batches, and what is compared.

    config.json -> official_options;  case -> golden_batch -> head -> expected_of(case), found names -> compare

Nothing here knows sizes, weights or numbers of layers: they stand in the config of a set. Each upstream differs in how its cases
spell inputs and parts of losses, and in nothing else; `golden_mesm.py` reads the cases of MESM.
"""

import copy
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from qle.compat import UPSTREAMS
from qle.heads.moments import MomentBatch, MomentHead, MomentOutput, MomentTargets
from qle.nn.detr.matcher import match
from qle.text.base import Words
from tests.golden_sets import kind_of, read_config

TOLERANCE = 1e-4
"""Relative to the largest number of a tensor."""
LEAST = 0.1
"""Where all numbers of a tensor are smaller, relative to this."""
KINDS = ("moment-detr", "qd-detr", "cg-detr", "mesm")

OPTIONS = {
    "num_heads": "nheads",
    "use_text_position": "use_txt_pos",
    "auxiliary_losses": "aux_loss",
    "temperature": "temperature",
    "no_object_weight": "eos_coef",
    "saliency_margin": "saliency_margin",
    "rank_temperature": "rank_temperature",
    "num_prompts": "num_prompts",
    "attention_saliency_weight": "lw_wattn",
    "dataset_style": "dataset_name",
    "normalize_text": "normalize_txt",
    "use_triplet": "use_triplet",
    "rank_divisor": "rank_coef",
    "sentence_iou_threshold": "iou_gamma",
    "sentence_temperature": "recss_tau",
    "label_smoothing": "label_smoothing",
}
"""Names in config.json -> official options (the rank temperature and the smoothing are constants there)."""
WEIGHTS = {
    "loss_span": ("span_loss_coef", "loss_span_coef"),
    "loss_giou": ("giou_loss_coef", "loss_giou_coef"),
    "loss_label": ("label_loss_coef", "loss_label_coef"),
    "loss_saliency": ("lw_saliency", "loss_saliency_coef"),
    "loss_contrastive_align": ("contrastive_align_loss_coef",),
    "loss_ms_align": ("lw_ms_align",),
    "loss_distill": ("lw_distill",),
    "loss_rec_fw": ("loss_recfw_coef",),
    "loss_rec_ss": ("loss_recss_coef",),
}
"""Terms -> official options for their weights: the family's spelling and MESM's."""
TERMS = {
    "contrastive_align": "align",
    "ms_align": "align",
    "orthogonal_dummy": "orthogonal",
    "rec_fw": "word",
    "rec_ss": "sentence",
    "saliency_neg_pair": "saliency_negative",
    "saliency_triplet": "saliency_margin",
    "saliency_attn_margin": "attention_margin",
    "saliency_attn_rank": "attention_rank",
    "saliency_attn_neg_pair": "attention_negative",
    "saliency_attn_bce": "attention_bce",
}
"""Official terms and parts of the saliency's -> ours, where they are called otherwise."""


@dataclass(frozen=True)
class GoldenSet:
    """One set: the official model as its folder tells it."""

    folder: Path
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]

    @classmethod
    def read(cls, folder: Path) -> "GoldenSet":
        return cls(folder, read_config(folder), load_file(folder / "weights.safetensors"))

    @property
    def kind(self) -> str:
        return str(kind_of(self.folder.name))

    @property
    def compat(self) -> ModuleType:
        return import_module(UPSTREAMS[self.kind].module)

    @property
    def aligns_nothing(self) -> bool:
        """Queries are aligned with the words of a memory that holds none: a constant, of projections that nothing else reads."""
        return bool(self.config.get("contrastive_align")) and self.kind != "moment-detr"

    @property
    def num_aux(self) -> int:
        """Layers before the last one whose answers the official program gives."""
        return self.config["decoder_layers"] - 1 if self.config["auxiliary_losses"] else 0

    def head(self, **options: Any) -> MomentHead:
        """The official weights with the official options of the set, and these."""
        return self.compat.head_from_official(self.state, official_options(self.config) | options)

    def without_unread(self) -> dict[str, Tensor]:
        """The tensors that a head can have at all."""
        if not self.aligns_nothing:
            return dict(self.state)
        return {name: part for name, part in self.state.items() if not name.startswith("contrastive_align_projection_")}


def official_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a set says of its model, under the names of the official program; words of the family come normalised."""
    found = {theirs: config[name] for name, theirs in OPTIONS.items() if name in config}
    weights = config["loss_weights"]
    found |= {theirs: weights[name] for name, names in WEIGHTS.items() if name in weights for theirs in names}
    found |= {f"set_cost_{name.removeprefix('cost_')}": value for name, value in config["matcher"].items()}
    if "word_classes" in config:
        # Of MESM. A piece has the number of its class, counted from 1; behind the unknown one come the marks.
        first_mark, num_marks = config["vocab_size"] + 2, config["word_classes"] - config["vocab_size"] - 1
        found["vocabulary"] = tuple(range(1, config["vocab_size"] + 1))
        found["marks"] = tuple(range(first_mark, first_mark + num_marks))
        found |= {
            name: weights.get(term, 0.0) for term, (name,) in _only(WEIGHTS, "loss_rec_fw", "loss_rec_ss").items()
        }
    else:
        found["normalise_words"] = False
    return found


def _only(names: Mapping[str, Any], *some: str) -> dict[str, Any]:
    return {name: names[name] for name in some}


ALIGNMENT = "loss_contrastive_align"
NO_SPANS = {"span_loss_coef": 0.0, "giou_loss_coef": 0.0, "label_loss_coef": 0.0, "lw_ms_align": 0.0, "lw_distill": 0.0}
"""Weights where a case has highlights alone, and the official program takes no other term."""


def golden_batch(kind: str, case: Mapping[str, Tensor], *, with_negatives: bool = True) -> MomentBatch:
    """The negative of an item is the next one, of the last the first; Moment-DETR knows none, and CG-DETR none of the same
    recording."""
    clips = torch.cat([case[name] for name in ("in.src_vid", "in.src_aud") if name in case], dim=-1)
    items = torch.arange(len(clips))
    following, words, sources = items.roll(-1), case["in.src_txt"], case.get("in.video_group", items).long()
    has_negatives = with_negatives and kind != "moment-detr" and not bool((sources == -1).all())
    return MomentBatch(
        clips=clips,
        clip_mask=case["in.src_vid_mask"].bool(),
        queries=tuple(f"query {item}" for item in items.tolist()),
        query_index=items,
        sources=sources,
        negative=following if has_negatives else None,
        negative_mask=sources != sources[following] if has_negatives and kind == "cg-detr" else None,
        words=Words(states=words, mask=case["in.src_txt_mask"].bool(), sentence=words[:, 0]),
        targets=_targets(case) if "loss.total" in case else None,
    )


def _targets(case: Mapping[str, Tensor]) -> MomentTargets:
    clip_mask = case["in.src_vid_mask"].bool()
    items, nothing = len(clip_mask), torch.zeros(clip_mask.shape)
    saliency = case.get("target.saliency_all_labels", nothing).float()
    pairs = "target.saliency_pos_labels"
    better = case.get(pairs, torch.zeros(items, 2)).long()
    return MomentTargets(
        spans=case.get("target.spans", torch.zeros(0, 2)),
        counts=tuple(case["target.num_spans"].tolist()) if "target.num_spans" in case else (0,) * items,
        relevant=saliency > 0,
        saliency=saliency,
        better=better,
        worse=case.get("target.saliency_neg_labels", torch.zeros(items, 2)).long(),
        pair_mask=torch.full_like(better, pairs in case, dtype=torch.bool),
    )


def check(found: Tensor, expected: Tensor, what: str) -> None:
    """Within the tolerance of the largest number."""
    found, expected = found.detach().double(), expected.double()
    limit = TOLERANCE * max(float(expected.abs().max()) if expected.numel() else 0.0, LEAST)
    torch.testing.assert_close(found, expected, atol=limit, rtol=0, msg=lambda text: f"{what}: {text}")


def layers_of(output: MomentOutput, num_aux: int) -> dict[str, Tensor]:
    """Logits and spans of the last layer, and of the first `num_aux`, under official names."""
    names = [*(f"out.aux{layer}" for layer in range(num_aux)), "out"]
    layers = [*range(num_aux), len(output.logits) - 1]
    found = {f"{name}.pred_logits": output.logits[layer] for name, layer in zip(names, layers, strict=True)}
    return found | {f"{name}.pred_spans": output.spans[layer] for name, layer in zip(names, layers, strict=True)}


def compare(
    case: Mapping[str, Tensor], found: Mapping[str, Tensor], batch: MomentBatch, *, unread: Collection[str] = ()
) -> None:
    """Every `out.*` and `mid.*` of the case against what was found; what is not found must be `unread`. Padded clips are not
    compared: they mean nothing, and not all programs agree about them."""
    expected = {name: value for name, value in case.items() if name.startswith(("out.", "mid."))}
    missing = expected.keys() - found.keys() - set(unread)
    assert not missing, f"nothing to compare with {sorted(missing)}"
    masks = [batch.clip_mask]
    if batch.negative_mask is not None:  # what is said of items that have a negative
        masks.append(batch.clip_mask[batch.negative_mask])
    for name in sorted(expected.keys() & found.keys()):
        value, mine = expected[name], found[name]
        assert mine.shape == value.shape, f"{name}: {tuple(mine.shape)} instead of {tuple(value.shape)}"
        real = next((mask for mask in masks if value.shape[:2] == mask.shape), None)
        check(*((mine, value) if real is None else (mine[real], value[real])), name)
    layers = {name.split(".")[1] for name in expected if name.startswith("out.aux")}
    assert layers == {name.split(".")[1] for name in found if name.startswith("out.aux")}, (
        "other layers than the program's"
    )


def check_matches(
    case: Mapping[str, Tensor], output: MomentOutput, targets: MomentTargets, costs: Any, num_aux: int
) -> None:
    """The same pairs; and so the same share of matched queries that are taken for background."""
    matches = match(output.logits, output.spans, targets.spans, targets.counts, costs)
    first = torch.tensor([0, *targets.counts]).cumsum(0)
    last = len(output.logits) - 1
    names = {"last": (last, "")} | {f"aux{layer}": (layer, f"_{layer}") for layer in range(num_aux)}
    for name, (layer, ending) in names.items():
        mine = matches.layer == layer
        item, query = matches.item[mine], matches.query[mine]
        found = zip(item.tolist(), query.tolist(), (matches.target[mine] - first[item]).tolist(), strict=True)
        parts = [case.get(f"match.{name}.{part}") for part in ("sample", "query", "target")]
        if parts[0] is not None:
            expected = zip(*(part.tolist() for part in parts if part is not None), strict=True)
            assert sorted(found) == sorted(expected), name
        is_missed = output.logits[layer, item, query].argmax(-1) != 0
        check(100 * is_missed.float().mean(), case[f"loss.class_error{ending}"], f"class_error{ending}")
    assert {name.split(".")[1] for name in case if name.startswith("match.")} <= names.keys()


def expected_terms(golden: GoldenSet, case: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every official term times its weight, and the parts of the saliency's times theirs, under our names. `saliency` is the sum
    of all that teaches saliency and attention."""
    config, weights = golden.config, golden.config["loss_weights"]
    found = {}
    for name, value in case.items():
        term = name.removeprefix("loss.")
        if term in weights and name != term and not (golden.aligns_nothing and term.startswith(ALIGNMENT)):
            base, _, layer = term.removeprefix("loss_").rpartition("_")
            base, layer = (base, f"_{layer}") if layer.isdigit() else (term.removeprefix("loss_"), "")
            found[f"{TERMS.get(base, base)}{layer}"] = value * weights[term]
        if name.startswith("loss.part."):
            part = name.removeprefix("loss.part.")
            weight = weights["loss_saliency"] * (config["attention_saliency_weight"] if "_attn_" in part else 1.0)
            found[TERMS.get(part, part)] = value * weight
    return found


def check_terms(golden: GoldenSet, case: Mapping[str, Tensor], terms: Mapping[str, Tensor], total: Tensor) -> None:
    """Every official term has one of ours and the other way round, and so has the sum."""
    expected, constant = expected_terms(golden, case), _constant_terms(golden, case)
    saliency = expected.pop("saliency")
    taught = {name: value for name, value in terms.items() if name.startswith(("saliency", "attention"))}
    check(torch.stack(list(taught.values())).sum(), saliency, "saliency")
    named = {name for name in expected if name.startswith(("saliency", "attention"))}
    rest = terms.keys() - taught.keys()
    if "target.spans" not in case and "target.norm_span" not in case:  # weighted with 0, and no term there
        rest -= {name for name in rest if not terms[name].detach().any()}
    assert rest | named == set(expected)
    for name, value in expected.items():
        check(terms[name], value, name)
    check(total + constant, case["loss.total"], "total")


def _constant_terms(golden: GoldenSet, case: Mapping[str, Tensor]) -> float:
    """What aligning queries with no word adds to the sum: the logarithm of their number in each layer."""
    if not golden.aligns_nothing:
        return 0.0
    values = [float(value) for name, value in case.items() if name.startswith(f"loss.{ALIGNMENT}")]
    for value in values:
        assert math.isclose(value, math.log(golden.config["num_queries"]), rel_tol=1e-5)
    return sum(values) * golden.config["loss_weights"][ALIGNMENT]


def check_gradients(
    case: Mapping[str, Tensor], head: MomentHead, official_state: Callable[[Any], Mapping[str, Tensor]]
) -> None:
    """Norms of the gradients, under official names: those of a copy whose weights are the gradients. What our head lacks must
    not learn."""
    slopes = copy.deepcopy(head)
    with torch.no_grad():
        for parameter, own in zip(slopes.parameters(), head.parameters(), strict=True):
            parameter.copy_(torch.zeros_like(own) if own.grad is None else own.grad)
    found = official_state(slopes)
    names = [name.removeprefix("grad.") for name in case if name.startswith("grad.")]
    assert names
    for name in names:
        norm = found[name].norm() if name in found else torch.tensor(0.0)
        check(norm, case[f"grad.{name}"], f"gradient of {name}")
