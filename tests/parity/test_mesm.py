"""The published MESM: official weights give the official numbers, and alone they are those of the default."""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from qle.compat.mesm import head_from_official, official_options, official_state
from qle.errors import CheckpointError
from qle.heads.mesm.head import MesmHead
from qle.heads.moments import MomentBatch, MomentOutput, MomentTargets
from qle.nn.detr.set_losses import set_losses
from qle.text.base import Words

pytestmark = pytest.mark.usefixtures("one_thread")

SETS = ("mesm", "mesm-single", "mesm-plain")
TERMS = {"saliency_rank": "rank", "saliency_negative": "neg_pair", "saliency_margin": "triplet"}


def _options(config: Mapping[str, Any], *, published: bool) -> dict[str, Any]:
    """The official options, from what the folder says about its model."""
    weights, num_marks = config["loss_weights"], config["word_classes"] - config["vocab_size"] - 1
    return {
        "dataset_name": config["dataset_style"], "nheads": config["num_heads"], "use_txt_pos": config["use_text_position"],
        "normalize_txt": config["normalize_text"], "use_triplet": config["use_triplet"],
        "rank_coef": config["rank_divisor"], "eos_coef": config["no_object_weight"],
        "saliency_margin": config["saliency_margin"], "iou_gamma": config["sentence_iou_threshold"],
        "recss_tau": config["sentence_temperature"],
        "loss_recfw_coef": weights.get("loss_rec_fw", 0.0), "loss_recss_coef": weights.get("loss_rec_ss", 0.0),
        **{f"loss_{name}_coef": weights[f"loss_{name}"] for name in ("span", "giou", "label", "saliency")},
        **{f"set_cost_{name}": config["matcher"][f"cost_{name}"] for name in ("span", "giou", "class")},
        # A piece has the number of its class, counted from 1.
        "vocabulary": tuple(range(1, config["vocab_size"] + 1)),
        "marks": tuple(range(config["vocab_size"] + 2, config["vocab_size"] + 2 + num_marks)),
        "published": published,
    }  # fmt: skip


def _head(golden: Path, name: str, *, published: bool) -> MesmHead:
    config = json.loads((golden / name / "config.json").read_text())
    return head_from_official(load_file(golden / name / "weights.safetensors"), _options(config, published=published))


def _batch(case: Mapping[str, Tensor], items: slice = slice(None)) -> MomentBatch:
    """Every item with a query of its own."""
    clips, num_clips = case["in.video_feat"][items], case["in.num_clips"]
    states = case["in.txt_feat"] if "in.txt_feat" in case else case["in.words_id"]
    mask = case["in.words_mask"].bool() if "in.words_mask" in case else states.sum(dim=-1) != 0
    states = states * mask[..., None]
    ids = None
    if "target.words_label" in case:
        ids = torch.zeros(mask.shape, dtype=torch.int64)
        ids[:, : case["target.words_label"].shape[1]] = case["target.words_label"] + 1
        ids = (ids * mask)[items]
    sentence = torch.nn.functional.normalize(states.sum(dim=1), dim=-1)
    count = len(clips)
    return MomentBatch(
        clips=clips,
        clip_mask=case["in.video_mask"][items].bool(),
        queries=tuple(f"query {number}" for number in range(count)),
        query_index=torch.arange(count),
        sources=torch.repeat_interleave(torch.arange(len(num_clips)), num_clips)[items],
        negative=case["in.neg_index"] if items == slice(None) else None,
        words=Words(states=states[items], mask=mask[items], sentence=sentence[items], ids=ids),
        targets=_targets(case) if "target.norm_span" in case else None,
    )


def _targets(case: Mapping[str, Tensor]) -> MomentTargets:
    relevant = case["target.clip_mask"].bool()
    counts = case["target.num_moments"].tolist() if "target.num_moments" in case else [1] * len(relevant)
    better, worse = case["target.pos_idx"], case["target.neg_idx"]
    return MomentTargets(
        spans=case["target.norm_span"],
        counts=tuple(counts),
        relevant=relevant,
        saliency=case.get("target.saliency_label", relevant.float()),
        better=better,
        worse=worse,
        pair_mask=torch.ones_like(better, dtype=torch.bool),
    )


def _answer(head: MesmHead, case: Mapping[str, Tensor]) -> MomentOutput:
    batch, hidden = _batch(case), case.get("in.masked_words")
    return head.answer(batch, None if hidden is None else hidden.bool())


def _close(found: Tensor, expected: Tensor, what: str) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4, msg=lambda text: f"{what}: {text}")


def _cases(golden: Path, name: str, kind: str) -> list[Path]:
    cases = sorted((golden / name).glob(f"case-{kind}*.safetensors"))
    assert cases, f"no cases {kind} in {golden / name}"
    return cases


@pytest.mark.parametrize("name", SETS)
def test_official_weights_give_official_numbers(golden: Path, name: str) -> None:
    head = _head(golden, name, published=True)
    for path in _cases(golden, name, ""):
        case = load_file(path)
        with torch.no_grad():
            output = _answer(head, case)
        mask = case["in.video_mask"].bool()
        found = {
            "out.pred_logits": output.logits[-1],
            "out.pred_spans": output.spans[-1],
            "out.aux0.pred_logits": output.logits[0],
            "out.aux0.pred_spans": output.spans[0],
        }
        for mine, theirs in (("saliency", "saliency_scores"), ("negative_saliency", "neg_saliency_scores")):
            _close(getattr(output, mine)[mask], case[f"out.{theirs}"][mask], f"{path.name} {theirs}")
        if head.sentence is not None:
            extras = output.extras
            found |= {
                "out.projed_video_feat": extras["clips"],
                "out.projed_words_feat": extras["texts"][:, 1:],
                "out.recon_feat": extras["texts"][:, 0],
                "out.projed_recon_feat": head.sentence_out(extras["texts"][:, :1])[:, 0],
                "out.expanded_words_feat": extras["texts"],
                "out.enhanced_video_feat": extras["enhanced"],
            }
            assert torch.equal(extras["text_mask"], case["out.expanded_words_mask"].bool())
        if "in.masked_words" in case:
            found["out.recfw_words_logit"] = output.extras["word_logits"]
        for key, value in found.items():
            _close(value, case[key], f"{path.name} {key}")


@pytest.mark.parametrize("name", SETS)
def test_official_losses_matches_and_gradients(golden: Path, name: str) -> None:
    head, config = _head(golden, name, published=True), json.loads((golden / name / "config.json").read_text())
    weights = config["loss_weights"]
    for path in _cases(golden, name, "loss-"):
        case, batch = load_file(path), _batch(load_file(path))
        head.zero_grad()
        output = _answer(head, case)
        losses = head.loss(output, batch)
        expected = {
            mine: weights["loss_saliency"] * case[f"loss.part.saliency_{theirs}"]
            for mine, theirs in TERMS.items()
            if f"loss.part.saliency_{theirs}" in case
        }
        for mine, theirs in {"word": "rec_fw", "sentence": "rec_ss"}.items():
            if f"loss.loss_{theirs}" in case:
                expected[mine] = weights[f"loss_{theirs}"] * case[f"loss.loss_{theirs}"]
        for part in ("span", "giou", "label"):
            expected |= {
                f"{part}{at}": weights[f"loss_{part}{at}"] * case[f"loss.loss_{part}{at}"] for at in ("", "_0")
            }
        assert losses.terms.keys() == expected.keys()
        for term, value in expected.items():
            _close(losses.terms[term].detach(), value, f"{path.name} {term}")
        _close(losses.total.detach(), case["loss.total"], f"{path.name} total")
        _check_matches(head, output, batch, case)
        losses.total.backward()
        for key, value in _official_gradients(head).items():
            if f"grad.{key}" in case:
                _close(value.norm(), case[f"grad.{key}"], f"{path.name} gradient of {key}")


def _check_matches(head: MesmHead, output: MomentOutput, batch: MomentBatch, case: Mapping[str, Tensor]) -> None:
    assert batch.targets is not None
    _, matches = set_losses(output.logits, output.spans, batch.targets, head.config.losses)
    first = torch.tensor([0, *batch.targets.counts]).cumsum(0)
    for layer, name in enumerate(("aux0", "last")):
        of_layer = matches.layer == layer
        found = [matches.item[of_layer], matches.query[of_layer]]
        found.append(matches.target[of_layer] - first[found[0]])
        expected = [case[f"match.{name}.{part}"] for part in ("sample", "query", "target")]
        assert sorted(zip(*(part.tolist() for part in found), strict=True)) == sorted(
            zip(*(part.tolist() for part in expected), strict=True)
        )


def _official_gradients(head: MesmHead) -> dict[str, Tensor]:
    """Gradients under the official names."""
    twin = copy.deepcopy(head)
    with torch.no_grad():
        for mine, theirs in zip(head.parameters(), twin.parameters(), strict=True):
            theirs.copy_(torch.zeros_like(mine) if mine.grad is None else mine.grad)
    return official_state(twin)


@pytest.mark.parametrize("name", SETS)
def test_the_default_gives_what_the_official_program_gives_for_one_query_alone(golden: Path, name: str) -> None:
    """In a batch and alone, with queries cut where the official program cuts them."""
    head, num_checked = _head(golden, name, published=False), 0
    for path in _cases(golden, name, ""):
        case = load_file(path)
        for item in sorted({int(key.split(".")[1]) for key in case if key.startswith("solo.")}):
            for place, whole in ((item, _batch(case)), (0, _batch(case, slice(item, item + 1)))):
                batch = whole.with_words(_cut(whole.words, head.config.max_words))
                with torch.no_grad():
                    output = head(batch)
                real = batch.clip_mask[place]
                _close(output.logits[-1, place], case[f"solo.{item}.pred_logits"], f"{path.name} {item}")
                _close(output.spans[-1, place], case[f"solo.{item}.pred_spans"], f"{path.name} {item}")
                _close(output.saliency[place][real], case[f"solo.{item}.saliency_scores"], f"{path.name} {item}")
                num_checked += 1
    assert num_checked


def _cut(words: Words | None, most: int) -> Words:
    assert words is not None
    return replace(
        words,
        states=words.states[:, :most],
        mask=words.mask[:, :most],
        ids=None if words.ids is None else words.ids[:, :most],
    )


@pytest.mark.parametrize("name", SETS)
def test_weights_go_back_under_their_official_names(golden: Path, name: str) -> None:
    state = load_file(golden / name / "weights.safetensors")
    head = _head(golden, name, published=True)
    assert head_from_official(state, official_options(head) | {"published": True}).config == head.config
    back = official_state(head)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())
    fixed = official_state(_head(golden, name, published=False))
    assert {key: value.shape for key, value in fixed.items()} == {key: value.shape for key, value in state.items()}
    unused = {key for key, value in state.items() if not torch.equal(fixed[key], value)}
    parts = ("ss_reconstructor.output_sent_proj", "txt_position_embed", "enhance_encoder")
    assert all(key.startswith(parts[: 2 if _enhances(state) else 3]) for key in unused)


def _enhances(state: Mapping[str, Tensor]) -> bool:
    return "masked_token" in state


def test_a_tensor_too_many_or_too_few_is_named(golden: Path) -> None:
    state = load_file(golden / "mesm" / "weights.safetensors")
    with pytest.raises(CheckpointError, match="1 unexpected: strange"):
        head_from_official(state | {"strange": torch.zeros(1)}, {"nheads": 4})
    short = {name: tensor for name, tensor in state.items() if name != "saliency_proj1.bias"}
    with pytest.raises(CheckpointError, match=r"1 missing: saliency_proj1\.bias"):
        head_from_official(short, {"nheads": 4})
    with pytest.raises(CheckpointError, match="not a checkpoint of MESM"):
        head_from_official({"a": torch.zeros(1)}, {})
    text = {"text_encoder.ln_final.weight": torch.ones(3)}  # as the model holds it while it works
    head = head_from_official(state | text, {"nheads": 4, "tokenizer_type": "CLIP"})
    assert head.config.vocabulary == (-1,) * 17  # which words they are, the file does not say
