"""The `cg_detr` head against the official program: outputs, losses, matches, gradients, weights both ways."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from qle.compat import cg_detr
from qle.errors import CheckpointError
from qle.heads.cg_detr.head import CgDetrHead
from qle.heads.moments import MomentBatch, MomentTargets
from qle.nn.detr.set_losses import set_losses
from qle.text.base import Words

pytestmark = pytest.mark.usefixtures("one_thread")

INFERENCE = ("full", "ragged", "one", "demo")
LOSSES = ("loss-ragged", "loss-one-false-negative", "loss-two-false-negatives", "loss-one")
SETTINGS = {"nheads": 4, "num_prompts": 2, "normalise_words": False}
PARTS = {
    "saliency_margin": "saliency_margin",
    "saliency_rank": "saliency_rank",
    "saliency_negative": "saliency_neg_pair",
    "attention_margin": "saliency_attn_margin",
    "attention_rank": "saliency_attn_rank",
    "attention_negative": "saliency_attn_neg_pair",
    "attention_bce": "saliency_attn_bce",
}
TERMS = {"span": 10, "giou": 1, "label": 4}
OTHERS = {"align": "ms_align", "distill": "distill", "orthogonal": "orthogonal_dummy"}


@pytest.fixture(scope="module")
def folder(golden: Path) -> Path:
    return golden / "cg-detr"


def head_of(folder: Path, *, published: bool) -> CgDetrHead:
    return cg_detr.head_from_official(load_file(folder / "weights.safetensors"), SETTINGS | {"published": published})


def batch_of(case: dict[str, Tensor], *, with_negatives: bool = True) -> MomentBatch:
    num_items = len(case["in.src_vid"])
    sources = case["in.video_group"].long()
    following = (torch.arange(num_items) + 1) % num_items
    has_names = with_negatives and not bool((sources == -1).all())
    return MomentBatch(
        clips=case["in.src_vid"],
        clip_mask=case["in.src_vid_mask"].bool(),
        queries=tuple(f"query {number}" for number in range(num_items)),
        query_index=torch.arange(num_items),
        sources=sources,
        negative=following if has_names else None,
        negative_mask=sources != sources[following] if has_names else None,
        words=Words(states=case["in.src_txt"], mask=case["in.src_txt_mask"].bool(), sentence=torch.ones(num_items, 1)),
        targets=targets_of(case) if "target.spans" in case else None,
    )


def targets_of(case: dict[str, Tensor]) -> MomentTargets:
    labels = case["target.saliency_all_labels"].float()
    better = case["target.saliency_pos_labels"].long()
    return MomentTargets(
        spans=case["target.spans"],
        counts=tuple(case["target.num_spans"].tolist()),
        relevant=labels > 0,
        saliency=labels,
        better=better,
        worse=case["target.saliency_neg_labels"].long(),
        pair_mask=torch.ones_like(better, dtype=torch.bool),
    )


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*INFERENCE, *LOSSES])
@torch.no_grad()
def test_outputs(folder: Path, name: str) -> None:
    case = load_file(folder / f"case-{name}.safetensors")
    batch = batch_of(case)
    output = head_of(folder, published=True)(batch)
    close(output.logits[-1], case["out.pred_logits"])
    close(output.spans[-1], case["out.pred_spans"])
    close(output.logits[0], case["out.aux0.pred_logits"])
    close(output.spans[0], case["out.aux0.pred_spans"])
    close(output.saliency[batch.clip_mask], case["out.saliency_scores"][batch.clip_mask])
    close(output.extras["weights"][batch.clip_mask], case["out.cate_attn_weights"][batch.clip_mask])
    close(output.extras["attention"][batch.clip_mask], case["out.t2vattnvalues"][batch.clip_mask])
    close(output.extras["dummies"], case["out.dummy_tokens"])
    if "out.saliency_scores_neg" in case:
        assert output.negative_saliency is not None
        assert batch.negative_mask is not None
        assert batch.negative_mask.tolist() == case["out.real_neg_mask"].bool().tolist()
        mask = batch.clip_mask[batch.negative_mask]
        close(output.negative_saliency[batch.negative_mask][mask], case["out.saliency_scores_neg"][mask])
        close(output.extras["negative_attention"][batch.negative_mask][mask], case["out.t2vattnvalues_neg"][mask])


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients(folder: Path, name: str) -> None:
    case = load_file(folder / f"case-{name}.safetensors")
    batch, head = batch_of(case), head_of(folder, published=True)
    output = head(batch)
    tokens = {
        "sentence": "sentence_txt",
        "dummy_sentence": "sentence_dummy",
        "moment": "memory_moment",
        "rest": "nmmemory_moment",
        "similarity": "moment2txt_similarity",
        "frames": "src_vid",
    }
    for ours, theirs in tokens.items():
        close(output.extras[ours], case[f"out.{theirs}"])
    losses = head.loss(output, batch)
    for layer in ("", "_0"):
        for term, weight in TERMS.items():
            close(losses.terms[f"{term}{layer}"], weight * case[f"loss.loss_{term}{layer}"])
    for ours, theirs in PARTS.items():
        if f"loss.part.{theirs}" in case:
            close(losses.terms[ours], case[f"loss.part.{theirs}"])
    for ours, theirs in OTHERS.items():
        close(losses.terms[ours], case[f"loss.loss_{theirs}"])
    close(losses.total, case["loss.total"])
    losses.total.backward()
    norms = {link: tensor for link, tensor in case.items() if link.startswith("grad.")}
    grads = official_gradients(head)
    for name_of_grad, expected in norms.items():
        torch.testing.assert_close(grads[name_of_grad.removeprefix("grad.")].norm(), expected, rtol=1e-4, atol=1e-5)
    assert norms


def official_gradients(head: CgDetrHead) -> dict[str, Tensor]:
    """Gradients under the official names: the head with its gradients in the place of its weights."""
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    return cg_detr.official_state(head)


@pytest.mark.parametrize("name", LOSSES)
@torch.no_grad()
def test_matches(folder: Path, name: str) -> None:
    case = load_file(folder / f"case-{name}.safetensors")
    batch, head = batch_of(case), head_of(folder, published=True)
    output = head(batch)
    assert batch.targets is not None
    _, matches = set_losses(output.logits, output.spans, batch.targets, head.config.losses)
    first = torch.tensor([0, *batch.targets.counts]).cumsum(0)
    for layer, label in ((0, "aux0"), (1, "last")):
        of_layer = matches.layer == layer
        found = {
            "sample": matches.item[of_layer],
            "query": matches.query[of_layer],
            "target": matches.target[of_layer] - first[matches.item[of_layer]],
        }
        for kind, values in found.items():
            assert values.tolist() == case[f"match.{label}.{kind}"].tolist(), (label, kind)


@pytest.mark.parametrize("name", ["full", "ragged", "demo"])
@torch.no_grad()
def test_default_equals_each_item_alone(folder: Path, name: str) -> None:
    case = load_file(folder / f"case-{name}.safetensors")
    batch = batch_of(case, with_negatives=False)
    output = head_of(folder, published=False)(batch)
    for item, length in enumerate(batch.clip_mask.sum(1).tolist()):
        close(output.logits[-1, item], case[f"solo.{item}.pred_logits"])
        close(output.spans[-1, item], case[f"solo.{item}.pred_spans"])
        close(output.saliency[item, :length], case[f"solo.{item}.saliency_scores"])
        close(output.extras["attention"][item, :length], case[f"solo.{item}.t2vattnvalues"])


def test_weights_go_both_ways(folder: Path) -> None:
    official = load_file(folder / "weights.safetensors")
    back = cg_detr.official_state(head_of(folder, published=True))
    assert back.keys() == official.keys()
    different = [name for name in official if not torch.equal(back[name], official[name])]
    # Nothing reads these, so the head has none.
    assert all(name.startswith("txt_proj_linear.") for name in different)


def test_a_tensor_too_many_or_too_few_is_named(folder: Path) -> None:
    official = load_file(folder / "weights.safetensors")
    with pytest.raises(CheckpointError, match="surplus"):
        cg_detr.head_from_official(official | {"surplus": torch.zeros(1)}, SETTINGS)
    del official["saliency_proj1.weight"]
    with pytest.raises(CheckpointError, match=r"saliency_proj1\.weight"):
        cg_detr.head_from_official(official, SETTINGS)


def test_sizes_of_the_golden_weights(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    head = head_of(folder, published=True)
    assert head.config.num_dummies == config["num_dummies"]
    assert head.config.num_prompts == config["total_prompts"]
    assert head.config.kept_prompts == config["num_prompts"]
