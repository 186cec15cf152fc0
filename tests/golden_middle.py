"""What a head of the Moment-DETR family says and computes on the way, under the names of the golden tensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qle.heads.moments import MomentBatch, MomentHead, MomentOutput
from tests.golden_moments import GoldenSet, layers_of

Seen = dict[str, list[Any]]
"""By part of the head, what each of its calls gave."""


@contextmanager
def watched(head: nn.Module) -> Iterator[Seen]:
    """Within it, what the parts of the head give is kept."""
    inner = getattr(head, "detr", head)
    parts = {"encoder": inner.encoder, "decoder": inner.decoder}
    for name in ("enhance", "align"):
        if isinstance(layers := getattr(head, name, None), nn.ModuleList) and len(layers):
            parts[name] = layers[-1]
    seen: Seen = {name: [] for name in parts}
    hooks = [
        part.register_forward_hook(lambda module, given, out, name=name: seen[name].append(out))
        for name, part in parts.items()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def found_outputs(
    golden: GoldenSet, head: MomentHead, batch: MomentBatch, output: MomentOutput, seen: Seen
) -> dict[str, Tensor]:
    """Every output of the official program that the head has, too, and its states on the way."""
    found = layers_of(output, golden.num_aux) | {"out.saliency_scores": output.saliency}
    special = {"moment-detr": _moment_detr, "qd-detr": _qd_detr, "cg-detr": _cg_detr, "mesm": _mesm}[golden.kind]
    return found | special(golden, head, batch, output, seen)


def unread_outputs(golden: GoldenSet) -> set[str]:
    """Official outputs that say nothing of their own: masks that came in, and what only an unread projection makes."""
    found = {"out.txt_mask", "out.src_txt_mask_neg", "out.moment_mask", "out.words_mask", "out.nmoment2txt_similarity"}
    if golden.aligns_nothing:
        layers = ["out", *(f"out.aux{layer}" for layer in range(golden.num_aux))]
        found |= {f"{layer}.proj_{part}" for layer in layers for part in ("queries", "txt_mem", "vid_mem")}
    return found


def _moment_detr(
    golden: GoldenSet, head: MomentHead, batch: MomentBatch, output: MomentOutput, seen: Seen
) -> dict[str, Tensor]:
    found = {"mid.hs": seen["decoder"][0], "mid.memory": seen["encoder"][0]}
    if "aligned_queries" not in output.extras:
        return found
    queries, words = output.extras["aligned_queries"], output.extras["aligned_words"]
    for layer in range(golden.num_aux):
        found |= {f"out.aux{layer}.proj_queries": queries[layer], f"out.aux{layer}.proj_txt_mem": words}
    return found | {
        "out.proj_queries": queries[-1],
        "out.proj_txt_mem": words,
        "out.proj_vid_mem": output.extras["aligned_clips"],
    }


def _token_detr(seen: Seen, batch: MomentBatch) -> dict[str, Tensor]:
    """Clips and token of both rounds, states and references."""
    rounds = 1 if batch.negative is None else 2
    found = {"mid.hs": seen["decoder"][0][0], "mid.reference": seen["decoder"][0][1]}
    for name, both in zip(("memory", "memory_global"), seen["encoder"][0], strict=True):
        found |= {f"mid.{name}{end}": part for end, part in zip(("", "_neg"), both.chunk(rounds), strict=False)}
    return found


def _qd_detr(
    golden: GoldenSet, head: MomentHead, batch: MomentBatch, output: MomentOutput, seen: Seen
) -> dict[str, Tensor]:
    assert output.negative_saliency is not None
    return {"out.saliency_scores_neg": output.negative_saliency} | _token_detr(seen, batch)


def _cg_detr(
    golden: GoldenSet, head: MomentHead, batch: MomentBatch, output: MomentOutput, seen: Seen
) -> dict[str, Tensor]:
    extras = output.extras
    found = {
        "out.cate_attn_weights": extras["weights"], "out.t2vattnvalues": extras["attention"],
        "out.dummy_tokens": extras["dummies"], "out.global_rep_tokens": head.token.prompts,
        "mid.hs": seen["decoder"][0][0], "mid.reference": seen["decoder"][0][1],
    }  # fmt: skip
    for end, memory in zip(("", "_neg"), seen["encoder"], strict=False):
        found |= {f"mid.memory_global{end}": memory[:, 0], f"mid.memory{end}": memory[:, 1:] + memory[:, :1]}
    if batch.negative_mask is not None:
        found["out.real_neg_mask"] = batch.negative_mask
    if output.negative_saliency is not None and batch.negative_mask is not None and batch.negative_mask.any():
        found["out.saliency_scores_neg"] = output.negative_saliency[batch.negative_mask]
        found["out.t2vattnvalues_neg"] = extras["negative_attention"][batch.negative_mask]
    names = {
        "sentence": "sentence_txt", "dummy_sentence": "sentence_dummy", "moment": "memory_moment",
        "rest": "nmmemory_moment", "similarity": "moment2txt_similarity", "frames": "src_vid",
    }  # fmt: skip
    return found | {f"out.{theirs}": extras[ours] for ours, theirs in names.items() if ours in extras}


def _mesm(
    golden: GoldenSet, head: MomentHead, batch: MomentBatch, output: MomentOutput, seen: Seen
) -> dict[str, Tensor]:
    assert output.negative_saliency is not None
    extras = output.extras
    found = {"out.neg_saliency_scores": output.negative_saliency} | _token_detr(seen, batch)
    for part, name in (("align", "encoded"), ("enhance", "enhanced")):
        if seen.get(part):
            found |= {f"mid.{name}{end}": half for end, half in zip(("", "_neg"), seen[part][0].chunk(2), strict=True)}
    if head.sentence is not None:
        found |= {
            "out.projed_video_feat": extras["clips"],
            "out.projed_words_feat": extras["texts"][:, 1:],
            "out.recon_feat": extras["texts"][:, 0],
            "out.projed_recon_feat": head.sentence_out(extras["texts"][:, :1])[:, 0],
            "out.expanded_words_feat": extras["texts"],
            "out.expanded_words_mask": extras["text_mask"],
            "out.enhanced_video_feat": extras.get("enhanced", extras["clips"]),
        }
    if "word_logits" in extras:
        found["out.recfw_words_logit"] = extras["word_logits"]
    return {name: value for name, value in found.items() if torch.is_tensor(value)}
