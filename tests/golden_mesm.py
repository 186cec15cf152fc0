"""Golden cases of MESM, whose inputs are spelled otherwise than those of its family: several queries of one recording side by
side, words as token features or as vectors, and draws that stand in the case."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from qle.heads.mesm.head import MesmHead
from qle.heads.moments import MomentBatch, MomentOutput, MomentTargets
from qle.text.base import Words


def mesm_batch(case: Mapping[str, Tensor], items: slice = slice(None)) -> MomentBatch:
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


def mesm_answer(head: MesmHead, case: Mapping[str, Tensor]) -> MomentOutput:
    """With the words hidden that the case says were."""
    hidden = case.get("in.masked_words")
    return head.answer(mesm_batch(case), None if hidden is None else hidden.bool())


def cut_words(batch: MomentBatch, most: int) -> MomentBatch:
    """Queries as the official program reads them, without what is behind its longest."""
    words = batch.words
    assert words is not None
    ids = None if words.ids is None else words.ids[:, :most]
    return batch.with_words(replace(words, states=words.states[:, :most], mask=words.mask[:, :most], ids=ids))
