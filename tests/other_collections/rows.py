"""Sets of QLE: numbers of torch's own modules under the official names."""

import json
import random
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from qle.nn.temporal.ssm_published import PublishedSsmMixer
from tests.other_collections.shared import randomised, write_case


class PublishedQle(nn.Module):
    """The published QLE heads as the torch modules that their official names are those of."""

    def __init__(self, dim: int, text_dim: int, num_heads: int, draw: random.Random) -> None:
        super().__init__()
        decoder = nn.TransformerDecoderLayer(dim, num_heads, draw.randint(5, 30), batch_first=True)
        guided = {"transformer_decoder": nn.TransformerDecoder(decoder, draw.randint(1, 3))}
        guided |= {"fc_relevance": nn.Linear(dim, 1), "text_proj": nn.Linear(text_dim, dim)}
        if draw.random() < 0.5:
            network = nn.Sequential(nn.Linear(2 * dim, dim // 2), nn.ReLU(), nn.Linear(dim // 2, 1))
            guided["confidence_module"] = nn.ModuleDict({"confidence_network": network})
        encoder = nn.TransformerEncoderLayer(dim, num_heads, draw.randint(5, 30), batch_first=True)
        temporal: dict[str, nn.Module] = {"transformer_encoder": nn.TransformerEncoder(encoder, draw.randint(1, 5))}
        if draw.random() < 0.5:
            sizes = {"state_dim": draw.randint(2, 6), "kernel": draw.randint(2, 5), "expand": draw.randint(1, 3)}
            temporal = dict(PublishedSsmMixer(dim, num_layers=draw.randint(1, 5), **sizes).named_children())
        temporal["fc_output"] = nn.Linear(dim, draw.choice([1, 2]))
        self.language_guided_head, self.temporal_head = nn.ModuleDict(guided), nn.ModuleDict(temporal)

    def forward(self, tokens: Tensor, text: Tensor, text_mask: Tensor) -> dict[str, Tensor]:
        """Of one video (rows, cells, dim) and one query (1, words, text_dim)."""
        head, rows = self.language_guided_head, len(tokens)
        words, hidden = head["text_proj"](text).expand(rows, -1, -1), ~text_mask.bool().expand(rows, -1)
        if "confidence_module" in head:
            both = torch.cat([tokens.mean(1), words.mean(1)], dim=-1)
            tokens = tokens * head["confidence_module"]["confidence_network"](both).sigmoid()[:, None]
        fused = head["transformer_decoder"](tokens, words, memory_key_padding_mask=hidden)
        mixed = fused.mean(1)[None]
        if "transformer_encoder" in self.temporal_head:
            mixed = self.temporal_head["transformer_encoder"](mixed)
        else:
            for layer in self.temporal_head["layers"]:
                mixed = mixed + layer(mixed)
            mixed = self.temporal_head["norm"](mixed)
        out = self.temporal_head["fc_output"](mixed)
        return {
            "out.fused": fused[None],
            "out.relevance_map": head["fc_relevance"](fused)[None, ..., 0],
            "out.raw_logit": head["fc_relevance"](fused.mean(1))[None, :, 0],
            "out.temporal": out if out.shape[-1] == 1 else nn.functional.softplus(out),
        }


def qle_set(folder: Path, draw: random.Random) -> None:
    num_heads, dim, text_dim, num_words = draw.choice([2, 4]), 16, draw.randint(4, 12), draw.randint(2, 5)
    model = randomised(PublishedQle(dim, text_dim, num_heads, draw))
    state = model.state_dict()
    save_file(state, folder / "weights.safetensors")
    names = {name.split(".")[3] for name in state if ".transformer_decoder.layers." in name}
    told = {
        "num_heads": num_heads, "num_layers": len(names), "temporal_outputs": len(state["temporal_head.fc_output.bias"]),
        "confidence_fusion": "confidence_module" in model.language_guided_head,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(told))
    tokens, text = torch.randn(1, draw.randint(2, 6), draw.randint(4, 9), dim), torch.randn(1, num_words, text_dim)
    mask = torch.ones(1, num_words, dtype=torch.int64)
    mask[:, -1] = 0
    with torch.no_grad():
        outputs = model(tokens[0], text, mask)
    write_case(folder, draw, {"in.tokens": tokens, "in.text": text, "in.text_mask": mask, **outputs})
