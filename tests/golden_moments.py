"""Golden numbers of the Moment-DETR family, read into the types of the package and compared with what a head says."""

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from qle.heads.moments import MomentBatch, MomentHead, MomentOutput, MomentTargets
from qle.nn.detr.matcher import match
from qle.text.base import Words

TOLERANCE = 1e-4
"""Relative to the largest number of a tensor."""


def load_set(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and official weights."""
    return json.loads((folder / "config.json").read_text()), load_file(folder / "weights.safetensors")


def load_cases(folder: Path, pattern: str) -> dict[str, dict[str, Tensor]]:
    found = {path.stem: load_file(path) for path in sorted(folder.glob(f"{pattern}.safetensors"))}
    assert found, f"no {pattern} in {folder}"
    return found


def official_options(config: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Settings of a golden set under the names that the official program gives them; words are normalised already."""
    return {
        "nheads": config["num_heads"],
        "use_txt_pos": config["use_text_position"],
        "temperature": config["temperature"],
        "normalise_words": False,
        **more,
    }


def golden_batch(case: Mapping[str, Tensor], *, has_negative: bool) -> MomentBatch:
    """The negative of an item is the next one, of the last the first."""
    clips = torch.cat([case[name] for name in ("in.src_vid", "in.src_aud") if name in case], dim=-1)
    items = torch.arange(len(clips))
    words = case["in.src_txt"]
    return MomentBatch(
        clips=clips,
        clip_mask=case["in.src_vid_mask"].bool(),
        queries=tuple(f"query {item}" for item in items.tolist()),
        query_index=items,
        sources=items,
        negative=items.roll(-1) if has_negative else None,
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
    limit = TOLERANCE * max(float(expected.abs().max()), 1e-3)
    torch.testing.assert_close(found, expected, atol=limit, rtol=0, msg=lambda text: f"{what}: {text}")


def check_predictions(case: Mapping[str, Tensor], output: MomentOutput, where: str) -> None:
    """Spans and classes of all layers, and saliency."""
    last = len(output.logits) - 1
    for layer in range(last + 1):
        name = "out" if layer == last else f"out.aux{layer}"
        check(output.logits[layer], case[f"{name}.pred_logits"], f"{where} {name}.pred_logits")
        check(output.spans[layer], case[f"{name}.pred_spans"], f"{where} {name}.pred_spans")
    check(output.saliency, case["out.saliency_scores"], f"{where} saliency")
    if output.negative_saliency is not None:
        check(output.negative_saliency, case["out.saliency_scores_neg"], f"{where} negative saliency")


def check_matches(case: Mapping[str, Tensor], output: MomentOutput, batch: MomentBatch, costs: Any, where: str) -> None:
    """The same pairs, in the same order; and so the same share of matched queries that are taken for background."""
    targets = batch.targets
    assert targets is not None
    matches = match(output.logits, output.spans, targets.spans, targets.counts, costs)
    first = torch.tensor([0, *targets.counts]).cumsum(0)
    last = len(output.logits) - 1
    for layer in range(last + 1):
        name, ending = ("last", "") if layer == last else (f"aux{layer}", f"_{layer}")
        mine = matches.layer == layer
        item, query = matches.item[mine], matches.query[mine]
        found = {"sample": item, "query": query, "target": matches.target[mine] - first[item]}
        for part, value in found.items():
            assert value.tolist() == case[f"match.{name}.{part}"].tolist(), f"{where} {name} {part}"
        is_missed = output.logits[layer, item, query].argmax(-1) != 0
        check(100 * is_missed.float().mean(), case[f"loss.class_error{ending}"], f"{where} class_error{ending}")


def check_terms(
    case: Mapping[str, Tensor], terms: Mapping[str, Tensor], weights: Mapping[str, float], where: str
) -> None:
    """Every official term and part has one of ours and the other way round."""
    parts = {name.removeprefix("loss.part."): value for name, value in case.items() if name.startswith("loss.part.")}
    expected = {name.replace("neg_pair", "negative"): value for name, value in parts.items()}
    for name, weight in weights.items():
        if f"loss.{name}" in case and not (name == "loss_saliency" and parts):
            expected[_ours(name)] = case[f"loss.{name}"] * weight
    assert set(terms) == set(expected), where
    for name, value in expected.items():
        check(terms[name].detach(), value, f"{where} {name}")
    found = torch.stack([value for name, value in terms.items() if name.startswith("saliency")]).sum()
    check(found.detach(), case["loss.loss_saliency"], f"{where} saliency")


def _ours(name: str) -> str:
    name = name.removeprefix("loss_").replace("contrastive_align", "align")
    return "saliency_margin" if name == "saliency" else name


def check_gradients(
    case: Mapping[str, Tensor],
    head: MomentHead,
    official_state: Callable[[Any], Mapping[str, Tensor]],
    where: str,
) -> None:
    """Norms of the gradients, under official names: those of a copy whose weights are the gradients."""
    slopes = copy.deepcopy(head)
    with torch.no_grad():
        for parameter, own in zip(slopes.parameters(), head.parameters(), strict=True):
            parameter.copy_(torch.zeros_like(own) if own.grad is None else own.grad)
    found = official_state(slopes)
    names = [name.removeprefix("grad.") for name in case if name.startswith("grad.")]
    assert names, where
    for name in names:
        check(found[name].norm(), case[f"grad.{name}"], f"{where} gradient of {name}")
