"""Small retrieval heads, texts and frames with random numbers, for contracts and for whoever needs a head that answers at once.

A head joins the contracts by an entry in `VARIANTS`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qle.heads import build_head
from qle.heads.base import TokenShapes
from qle.heads.retrieval import FRAMES, RetrievalBatch, RetrievalHead
from qle.text.base import Words

DIM, NUM_FRAMES = 16, 5
SAME = TokenShapes(streams={FRAMES: (DIM,)}, text_dim=DIM, sentence_dim=DIM)
OTHER = TokenShapes(streams={FRAMES: (DIM,)}, text_dim=6, sentence_dim=9)
SMALL = {"num_frames": NUM_FRAMES, "dim": 24, "trials": 4}

VARIANTS: dict[str, tuple[str, dict[str, Any], TokenShapes]] = {
    "tmass": ("tmass", SMALL, SAME),
    "tmass-heads": ("tmass", SMALL | {"num_heads": 4, "prior": "normal", "prior_std": 0.1}, SAME),
    "tmass-projected": ("tmass", SMALL, OTHER),
    "tmass-projected-always": ("tmass", SMALL | {"projection": "always", "support_weight": 0.0}, SAME),
    "tmass-deterministic": ("tmass", SMALL | {"scoring": "deterministic"}, SAME),
}
"""Name in HEADS, settings, what comes in."""


def small_retrieval_head(variant: str, seed: int = 0) -> RetrievalHead:
    """Every parameter random, so that nothing is hidden by a zero that it starts with."""
    torch.manual_seed(seed)
    head = build_head(*VARIANTS[variant]).eval()
    assert isinstance(head, RetrievalHead)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return head


def random_texts(num_texts: int, dim: int = DIM, seed: int = 0) -> Words:
    """Sentences of different lengths, without words."""
    sentence = torch.randn(num_texts, dim, generator=torch.Generator().manual_seed(seed))
    return Words(
        states=torch.zeros(num_texts, 0, dim),
        mask=torch.zeros(num_texts, 0, dtype=torch.bool),
        sentence=F.normalize(sentence, dim=-1),
        sentence_norm=sentence.norm(dim=-1),
    )


def random_frames(num_videos: int, seed: int = 0) -> Tensor:
    return torch.randn(num_videos, NUM_FRAMES, DIM, generator=torch.Generator().manual_seed(seed + 1000))


def retrieval_batch(variant: str, num_pairs: int = 4, seed: int = 0) -> RetrievalBatch:
    """Pairs, each with a text of its own."""
    return RetrievalBatch(
        frames=random_frames(num_pairs, seed),
        queries=tuple(f"query {number}" for number in range(num_pairs)),
        query_index=torch.arange(num_pairs),
        words=random_texts(num_pairs, VARIANTS[variant][2].sentence_dim, seed),
        positives=torch.eye(num_pairs, dtype=torch.bool),
    )
