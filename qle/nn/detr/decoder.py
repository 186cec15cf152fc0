"""The plain decoder of Moment-DETR: learned queries look at each other and at the memory, layer after layer.

memory (items, tokens, dim) + positions + mask -> Decoder -> states (layers, items, queries, dim)
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.nn.attention import Attention, FeedForward
from qle.nn.residual import Residual
from qle.nn.xavier import begin_as_published


class DecoderLayer(nn.Module):
    """Self-attention of the queries, cross-attention to the memory, feed-forward."""

    def __init__(self, dim: int, num_heads: int, hidden: int, *, dropout: float, pre_norm: bool = False) -> None:
        super().__init__()
        self.dim = dim
        self.self_attention = Attention(dim, num_heads, dropout=dropout)
        self.memory_attention = Attention(dim, num_heads, dropout=dropout)
        self.feed_forward = FeedForward(dim, hidden, dropout=dropout)
        self.residuals = nn.ModuleList(Residual(dim, dropout=dropout, pre_norm=pre_norm) for _ in range(3))
        begin_as_published(self)

    def forward(
        self,
        states: Float[Tensor, "items queries dim"],
        query_positions: Float[Tensor, "queries dim"],
        memory: Float[Tensor, "items tokens dim"],
        placed_memory: Float[Tensor, "items tokens dim"],
        memory_mask: Bool[Tensor, "items tokens"],
    ) -> Float[Tensor, "items queries dim"]:
        """`placed_memory` is the memory with its positions: what keys are made of."""

        def look_around(here: Tensor) -> Tensor:
            return self.self_attention.look(here + query_positions, here + query_positions, here)

        def look_at_memory(here: Tensor) -> Tensor:
            return self.memory_attention.look(here + query_positions, placed_memory, memory, memory_mask)

        states = self.residuals[0](states, look_around)
        states = self.residuals[1](states, look_at_memory)
        out: Tensor = self.residuals[2](states, self.feed_forward)
        return out


class PlainDecoder(nn.Module):
    """States begin at zero; what tells the queries apart is their learned position. One norm serves the results of all layers."""

    def __init__(self, layers: Sequence[DecoderLayer], num_queries: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.places = nn.Embedding(num_queries, layers[0].dim)
        self.norm = nn.LayerNorm(layers[0].dim)

    def forward(
        self,
        memory: Float[Tensor, "items tokens dim"],
        memory_mask: Bool[Tensor, "items tokens"],
        memory_positions: Float[Tensor, "items tokens dim"],
    ) -> Float[Tensor, "layers items queries dim"]:
        query_positions = self.places.weight
        states, outputs = memory.new_zeros(len(memory), *query_positions.shape), []
        placed_memory = memory + memory_positions
        for layer in self.layers:
            states = layer(states, query_positions, memory, placed_memory, memory_mask)
            outputs.append(self.norm(states))
        return torch.stack(outputs)
