"""What a set of MESM has otherwise than its family: options of rebuilt words and sentences, inputs with several queries of one
recording, and what is true of them."""

import random
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qle.heads.mesm.head import MesmConfig


def mesm_options(draw: random.Random) -> dict[str, Any]:
    """The vocabulary and its marks are numbered as the official classes are."""
    num_words = draw.randint(5, 20)
    enhances, sentences = draw.random() < 0.7, draw.random() < 0.7
    return {
        "enhances": enhances, "has_word_part": draw.random() < 0.5, "sentence_layers": draw.randint(1, 3) * sentences,
        "enhance_layers": draw.randint(1, 2), "align_layers": draw.randint(1, 3), "has_margin": draw.random() < 0.5,
        "normalise_words": draw.random() < 0.5, "sentence_clips": draw.choice(["window", "source"]),
        "word_weight": 0.3 * enhances, "sentence_weight": 0.2 * sentences, "label_smoothing": 0.2,
        "sentence_temperature": 0.7, "same_giou": 0.6,
        "vocabulary": tuple(range(1, num_words + 1)) if enhances else (),
        "marks": (num_words + 2, num_words + 3) if enhances else (),
    }  # fmt: skip


def mesm_config(config: MesmConfig) -> dict[str, Any]:
    """As the folders of our collection write it."""
    return {
        "dataset_style": "qvhighlights" if config.sentence_clips == "source" else "charades",
        "max_words": config.max_words, "normalize_text": config.normalise_words, "use_triplet": config.has_margin,
        "enhance_layers": config.enhance_layers, "align_layers": config.align_layers,
        "sentence_layers": config.sentence_layers, "vocab_size": len(config.vocabulary),
        "word_classes": len(config.vocabulary) + len(config.marks) + 1, "frame_word_reconstruction": config.enhances,
        "segment_sentence_reconstruction": config.sentence_layers > 0, "rank_divisor": config.losses.rank_divisor,
        "sentence_iou_threshold": config.same_giou, "sentence_temperature": config.sentence_temperature,
        "label_smoothing": config.label_smoothing,
    }  # fmt: skip


def mesm_weights(config: MesmConfig) -> dict[str, float]:
    """Of the terms that the set has."""
    weights = {"loss_rec_fw": config.word_weight, "loss_rec_ss": config.sentence_weight}
    return {name: weight for name, weight in weights.items() if weight}


def mesm_inputs(draw: random.Random, clip_dim: int, text_dim: int, config: MesmConfig) -> dict[str, Tensor]:
    """Queries of two or three recordings one after another; the negative of each is one of the next recording."""
    num_queries = torch.tensor([draw.randint(1, 3) for _ in range(draw.randint(2, 3))])
    sources = torch.repeat_interleave(torch.arange(len(num_queries)), num_queries)
    items, most = len(sources), config.max_words
    recorded = [draw.randint(3, 11) for _ in num_queries]
    num_clips, num_words = (torch.tensor(lengths) for lengths in (recorded, [draw.randint(3, most) for _ in sources]))
    clip_mask = torch.arange(max(recorded)) < num_clips[sources, None]
    word_mask = torch.arange(int(num_words.max())) < num_words[:, None]
    following = (sources + 1) % len(num_queries)
    return {
        "in.num_clips": num_queries, "in.video_feat": torch.randn(items, max(recorded), clip_dim) * clip_mask[..., None],
        "in.video_mask": clip_mask, "in.txt_feat": torch.randn(*word_mask.shape, text_dim) * word_mask[..., None],
        "in.words_mask": word_mask, "in.neg_index": torch.cat([(sources == source).nonzero()[:1, 0] for source in following]),
    }  # fmt: skip


def mesm_targets(inputs: Mapping[str, Tensor], config: MesmConfig, draw: random.Random) -> dict[str, Tensor]:
    """One or two moments of each item, and ratings of every other clip."""
    mask, words = inputs["in.video_mask"], inputs["in.words_mask"]
    relevant = mask.clone()
    relevant[:, 1::2] = False
    counts = torch.tensor([draw.randint(1, 2) for _ in mask])
    widths = torch.rand(int(counts.sum())) * 0.3 + 0.1
    pairs = torch.stack([torch.randint(int(length), (2, 2)) for length in mask.sum(1)]).unbind(1)
    hidden = {"in.masked_words": (torch.rand(words.shape) < 0.4) & words} if config.rebuilds_words else {}
    return hidden | {
        "target.norm_span": torch.stack([widths / 2 + torch.rand(len(widths)) * (1 - widths), widths], dim=-1),
        "target.num_moments": counts, "target.clip_mask": relevant,
        "target.saliency_label": torch.randint(1, 13, mask.shape) * relevant.float(),
        "target.pos_idx": pairs[0].contiguous(), "target.neg_idx": pairs[1].contiguous(),
        "target.words_label": torch.randint(max(len(config.vocabulary), 1), words.shape),
        "loss.total": torch.zeros(()),  # there are targets; the sum itself follows
    }  # fmt: skip
