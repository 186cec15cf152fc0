"""Sets of T-MASS."""

import json
import random
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from qle.compat import tmass
from qle.config import build_config
from qle.heads.base import TokenShapes
from qle.heads.retrieval import FRAMES
from qle.heads.tmass.head import TmassConfig, TmassHead
from tests.other_collections.shared import randomised, write_case


def official_tmass(draw: random.Random, *, dim: int, num_heads: int) -> TmassHead:
    """A head with drawn options, as the official program builds it."""
    settings = {"num_frames": draw.randint(3, 8), "num_heads": num_heads, "trials": draw.randint(2, 6)}
    settings |= {"projection": "never", "prior": "normal", "prior_std": 0.3, "support_weight": 0.4}
    shapes = TokenShapes(streams={FRAMES: (dim,)}, text_dim=dim, sentence_dim=dim)
    return randomised(TmassHead(build_config(TmassConfig, settings, where="tmass"), shapes))


def tmass_set(folder: Path, draw: random.Random) -> None:
    num_heads = draw.choice([1, 3])
    dim = 4 * num_heads * draw.randint(1, 3)
    head = official_tmass(draw, dim=dim, num_heads=num_heads)
    save_file(tmass.official_state(head), folder / "weights.safetensors")
    (folder / "config.json").write_text(json.dumps(tmass.official_options(head)))
    text, video = torch.randn(draw.randint(2, 4), dim), torch.randn(draw.randint(2, 4), draw.randint(2, 9), dim)
    with torch.no_grad():
        pooled = head.pooling(text, video)
        unit, units = (nn.functional.normalize(part, dim=-1) for part in (text, pooled))
    outputs = {"out.pooled": pooled, "out.similarity_plain_text": torch.einsum("nd,vnd->nv", unit, units)}
    write_case(folder, draw, {"in.text": text, "in.frames": video, **outputs})
