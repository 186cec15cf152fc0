"""Small moment heads and batches with random numbers, for contracts and for whoever needs a head that answers at once.

A head joins the contracts by an entry in `VARIANTS`; what it may do that others may not stands beside it, with the reason.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qle.heads import build_head
from qle.heads.base import TokenShapes
from qle.heads.moments import FEATURES, MomentBatch, MomentHead, MomentTargets
from qle.text.base import Words

CLIP_DIM, TEXT_DIM, NUM_IDS = 10, 6, 20
SHAPES = TokenShapes(streams={FEATURES: (CLIP_DIM,)}, text_dim=TEXT_DIM, sentence_dim=TEXT_DIM)
SMALL = {"dim": 16, "num_heads": 2, "hidden": 24, "encoder_layers": 2, "decoder_layers": 2, "num_queries": 5}


MESM = SMALL | {"vocabulary": tuple(range(3, 13)), "marks": (1, 2), "function_words": (4, 5)}
NOT_IN_EVALUATION = frozenset({"words."})
"""Words are hidden while a head trains; tests/unit/heads/test_mesm.py has that."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A head and what it is exempt from."""

    head: str
    settings: dict[str, Any] = field(default_factory=dict)
    groups_sources: bool = False
    """Items of one source are one another's context, so they are only alone together."""
    across_items: frozenset[str] = frozenset()
    """Terms of the loss that compare items with each other: halves of a batch do not add up to the whole."""
    silent: frozenset[str] = frozenset()
    """Parameters that training does not reach, by the beginning of their names."""


VARIANTS: dict[str, Variant] = {
    "moment_detr": Variant(head="moment_detr", settings=SMALL),
    "moment_detr-options": Variant(
        head="moment_detr",
        settings=SMALL
        | {"pre_norm": True, "word_positions": True, "aligns": True, "align_dim": 8, "projection_layers": 3},
    ),
    "qd_detr": Variant(head="qd_detr", settings=SMALL),
    "qd_detr-options": Variant(
        head="qd_detr", settings=SMALL | {"word_positions": True, "projection_layers": 1, "text_to_video_layers": 1}
    ),
    "cg_detr": Variant(
        head="cg_detr",
        settings=SMALL | {"num_dummies": 3, "num_prompts": 4, "kept_prompts": 2},
        across_items=frozenset({"align"}),
    ),
    "mesm": Variant(head="mesm", settings=MESM, across_items=frozenset({"sentence"}), silent=NOT_IN_EVALUATION),
    "mesm-options": Variant(
        head="mesm",
        settings=MESM
        | {"word_positions": True, "has_word_part": True, "sees_token": True, "sentence_clips": "source"}
        | {"has_margin": False},
        groups_sources=True,
        across_items=frozenset({"sentence"}),
        silent=NOT_IN_EVALUATION | {"enhance.0.word_part", "enhance.1.word_part"},
    ),
    "mesm-plain": Variant(head="mesm", settings=SMALL | {"enhances": False, "sentence_layers": 0}),
}


def small_moment_head(variant: str, seed: int = 0) -> MomentHead:
    """Every parameter random, so that nothing is hidden by a zero that it starts with."""
    torch.manual_seed(seed)
    head = build_head(VARIANTS[variant].head, VARIANTS[variant].settings, SHAPES).eval()
    assert isinstance(head, MomentHead)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return head


def moment_batch(num_clips: int = 11, num_words: int = 6, seed: int = 0) -> MomentBatch:
    """Eight items of four sources, two and two, of different lengths; halves of the batch hold their own negatives. One text
    is asked twice, and one item has no moments."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([num_clips, 7, 5, num_clips - 1, 6, num_clips, 4, 8])
    clip_mask = torch.arange(num_clips) < lengths[:, None]
    clips = F.normalize(torch.randn(8, num_clips, CLIP_DIM, generator=generator), dim=-1)
    return MomentBatch(
        clips=clips * clip_mask[..., None],
        clip_mask=clip_mask,
        queries=tuple(f"query {number}" for number in range(7)),
        query_index=torch.tensor([0, 1, 2, 3, 1, 4, 5, 6]),
        sources=torch.arange(4).repeat_interleave(2),
        negative=torch.tensor([2, 3, 0, 1, 6, 7, 4, 5]),
        negative_mask=torch.tensor([True] * 7 + [False]),
        words=moment_words(7, num_words, seed),
        targets=_targets(lengths, clip_mask, generator),
        videos=tuple(f"video {number}" for number in range(8)),
        first_clips=(0,) * 8,
    )


def moment_words(num_queries: int, num_words: int, seed: int = 0) -> Words:
    """Queries of 3 to `num_words` words."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(3, num_words + 1, (num_queries, 1), generator=generator)
    counts[0] = num_words
    mask = torch.arange(num_words) < counts
    states = torch.randn(num_queries, num_words, TEXT_DIM, generator=generator) * mask[..., None]
    sentence = torch.randn(num_queries, TEXT_DIM, generator=generator)
    return Words(
        states=states,
        mask=mask,
        sentence=F.normalize(sentence, dim=-1),
        sentence_norm=sentence.norm(dim=-1),
        ids=torch.randint(1, NUM_IDS, mask.shape, generator=generator) * mask,
    )


def _targets(lengths: Tensor, clip_mask: Tensor, generator: torch.Generator) -> MomentTargets:
    """Moments of whole clips, graded by chance inside."""
    counts = (1, 2, 1, 0, 3, 1, 1, 2)
    items = torch.repeat_interleave(torch.arange(8), torch.tensor(counts))
    first = (torch.rand(len(items), generator=generator) * (lengths[items] - 1)).long()
    num = 1 + (torch.rand(len(items), generator=generator) * (lengths[items] - first - 1)).long()
    relevant = torch.zeros_like(clip_mask)
    for item, begin, count in zip(items.tolist(), first.tolist(), num.tolist(), strict=True):
        relevant[item, begin : begin + count] = True
    start, end = first / lengths[items], (first + num) / lengths[items]
    grade = torch.randint(1, 13, relevant.shape, generator=generator)
    noise = torch.rand(2, *clip_mask.shape, generator=generator)
    is_mixed = relevant.any(1) & (clip_mask & ~relevant).any(1)
    return MomentTargets(
        spans=torch.stack([(start + end) / 2, end - start], dim=1),
        counts=counts,
        relevant=relevant,
        saliency=(grade * relevant).float(),
        better=(noise[0] * relevant).topk(2, dim=1).indices,
        worse=(noise[1] * (clip_mask & ~relevant)).topk(2, dim=1).indices,
        pair_mask=is_mixed[:, None].expand(-1, 2),
    )


def picked(batch: MomentBatch, items: list[int]) -> MomentBatch:
    """These items, in this order. Negatives must be among them."""
    index = torch.tensor(items)
    place = torch.full((batch.num_items,), -1)
    place[index] = torch.arange(len(items))
    negative = None if batch.negative is None else place[batch.negative[index]]
    assert negative is None or (negative >= 0).all()
    return replace(
        batch,
        clips=batch.clips[index],
        clip_mask=batch.clip_mask[index],
        query_index=batch.query_index[index],
        sources=batch.sources[index],
        negative=negative,
        negative_mask=None if batch.negative_mask is None else batch.negative_mask[index],
        targets=None if batch.targets is None else _picked_targets(batch.targets, index),
        videos=tuple(batch.videos[item] for item in items),
        first_clips=tuple(batch.first_clips[item] for item in items),
    )


def _picked_targets(targets: MomentTargets, index: Tensor) -> MomentTargets:
    spans = targets.spans.split(targets.counts)
    names = ("relevant", "saliency", "better", "worse", "pair_mask")
    return MomentTargets(
        spans=torch.cat([spans[item] for item in index.tolist()]),
        counts=tuple(targets.counts[item] for item in index.tolist()),
        **{name: getattr(targets, name)[index] for name in names},
    )


def without_answers(batch: MomentBatch) -> MomentBatch:
    """As at inference: nothing is known, no negatives."""
    return replace(batch, negative=None, negative_mask=None, targets=None)


def with_more_padding(batch: MomentBatch, num_clips: int, num_words: int, fill: float = 0.0) -> MomentBatch:
    """The same items, with so many more places, which hold `fill`, as does all padding that there was."""
    words, targets = batch.words, batch.targets
    assert words is not None
    assert targets is not None
    clip_mask, word_mask = F.pad(batch.clip_mask, (0, num_clips)), F.pad(words.mask, (0, num_words))
    clips = F.pad(batch.clips, (0, 0, 0, num_clips)).masked_fill(~clip_mask[..., None], fill)
    states = F.pad(words.states, (0, 0, 0, num_words)).masked_fill(~word_mask[..., None], fill)
    longer = {name: F.pad(getattr(targets, name), (0, num_clips)) for name in ("relevant", "saliency")}
    return replace(
        batch,
        clips=clips,
        clip_mask=clip_mask,
        words=replace(words, states=states, mask=word_mask, ids=F.pad(words.ids, (0, num_words))),
        targets=replace(targets, **longer),
    )
