"""Small heads and batches with random numbers, for contracts and for whoever needs a head that answers at once."""

import torch
from torch import nn

from qle.heads import build_head
from qle.heads.base import TokenShapes
from qle.heads.rows import RowBatch, RowHead
from qle.text.base import Words

SHAPES = TokenShapes(streams={"patch": (3, 4, 8), "frame": (8,)}, text_dim=6, sentence_dim=6)

QLE_VARIANTS: dict[str, dict] = {
    "default": {},
    "no-presence": {"presence_weight": 0.0},
    "evidence": {"output": "evidence"},
    "gate": {"confidence": "gate"},
    "no-match": {"matches": False},
    "mean": {"pooling": "mean", "knows_place": False, "look_reach": None},
    "ssm": {"temporal": "ssm", "state_dim": 4},
    "scores": {"temporal": "scores"},
    "no-mixer": {"temporal": "none"},
    "published": {
        "dim": None,
        "temporal": "published",
        "pooling": "mean",
        "map_gain": 1.0,
        "matches": False,
        "knows_place": False,
        "look_reach": None,
        "presence_weight": 0.0,
    },
    "published-ssm": {"dim": None, "temporal": "published-ssm", "pooling": "mean", "output": "evidence"},
}
TINY = {"dim": 16, "num_layers": 2, "num_heads": 2, "temporal_heads": 2, "temporal_layers": 2, "reach_rows": 3}


def small_head(variant: str = "default", seed: int = 0) -> RowHead:
    """Every parameter random, so that nothing is hidden by a zero that it starts with."""
    torch.manual_seed(seed)
    head = build_head("qle", TINY | QLE_VARIANTS[variant], SHAPES).eval()
    assert isinstance(head, RowHead)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return head


def random_words(num_queries: int, num_words: int = 5, seed: int = 0) -> Words:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(num_words) < torch.randint(1, num_words + 1, (num_queries, 1), generator=generator)
    states = torch.randn(num_queries, num_words, SHAPES.text_dim, generator=generator) * mask[..., None]
    sentence = torch.randn(num_queries, SHAPES.sentence_dim, generator=generator)
    return Words(states=states, mask=mask, sentence=nn.functional.normalize(sentence, dim=-1))


def random_batch(num_windows: int = 3, num_rows: int = 11, num_slots: int = 2, seed: int = 0) -> RowBatch:
    """Windows of different lengths, every query asked somewhere, labels at random."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, num_rows + 1, (num_windows, 1), generator=generator)
    row_mask = torch.arange(num_rows) < lengths
    tokens = torch.randn(num_windows, num_rows, *SHAPES.streams["patch"], generator=generator)
    relevance = torch.rand(num_windows, num_slots, num_rows, generator=generator).round()
    num_queries = num_windows * num_slots
    return RowBatch(
        streams={"patch": tokens * row_mask[..., None, None, None]},
        row_mask=row_mask,
        times_s=torch.arange(num_rows).double().expand(num_windows, -1) / 2,
        queries=tuple(f"query {number}" for number in range(num_queries)),
        query_index=torch.arange(num_queries).view(num_windows, num_slots),
        query_mask=torch.ones(num_windows, num_slots, dtype=torch.bool),
        words=random_words(num_queries, seed=seed),
        relevance=relevance,
        relevance_mask=row_mask[:, None].expand(-1, num_slots, -1),
    )
