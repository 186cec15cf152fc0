"""The decoder with reference points (DAB-DETR in one dimension): every query is a span that the layers move and refine.

memory + anchors -> ReferenceDecoder -> states (layers, items, queries, dim), references (layers, items, queries, 2)

A query begins as a learned anchor (centre, width). Each layer looks at the memory with the code of its reference beside its
content, so that it looks *there*, and sharper the shorter the reference is; then it moves the reference. A head predicts a
span from the state of a layer and the reference that this layer started from.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.nn.attention import FeedForward, mix_heads, over_heads
from qle.nn.detr.clip_positions import span_positions
from qle.nn.mlp import Mlp
from qle.nn.residual import Residual
from qle.nn.spans import inverse_sigmoid

NARROWEST = 1e-6
"""Width that a position is sharpened for at most: what a sigmoid says may round to 0."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The encoded clips that queries look at, with their positions."""

    values: Float[Tensor, "items tokens dim"]
    positions: Float[Tensor, "items tokens dim"]
    mask: Bool[Tensor, "items tokens"]


@dataclass(frozen=True, slots=True)
class QueryPosition:
    """Where a query looks from."""

    code: Float[Tensor, "items queries dim"]
    """The code of its reference, through a small network."""
    sharp: Float[Tensor, "items queries dim"]
    """The sines themselves, scaled by the state and by the width of the reference."""


class ReferenceDecoder(nn.Module):
    """Layers that move the reference of every query, and the learned references that they start from (the anchors)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden: int,
        num_layers: int,
        num_queries: int,
        *,
        dropout: float,
        stochastic_depth: bool = False,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.anchors = nn.Embedding(num_queries, 2)
        self.layers = nn.ModuleList(
            ReferenceLayer(
                dim, num_heads, hidden, dropout=dropout, stochastic_depth=stochastic_depth, is_first=not number
            )
            for number in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.place = Mlp(dim, dim, dim, 2)
        self.place_gain = Mlp(dim, dim, dim, 2)
        self.width_gain = Mlp(dim, dim, 1, 2)
        self.refine = Mlp(dim, dim, 2, 3)
        for module in (self.place, self.place_gain, self.width_gain, self.refine):
            _begin_evenly(module)

    def forward(
        self,
        memory: Float[Tensor, "items tokens dim"],
        memory_mask: Bool[Tensor, "items tokens"],
        memory_positions: Float[Tensor, "items tokens dim"],
    ) -> tuple[Float[Tensor, "layers items queries dim"], Float[Tensor, "layers items queries 2"]]:
        """References are those that each layer started from, in (0, 1)."""
        num_items, num_queries = len(memory), self.anchors.num_embeddings
        states = memory.new_zeros(num_items, num_queries, self.dim)
        reference = self.anchors.weight.float().sigmoid().expand(num_items, -1, -1)
        outputs, references, seen = [], [reference], Memory(memory, memory_positions, memory_mask)
        for number, layer in enumerate(self.layers):
            code = span_positions(reference, self.dim // 2)
            position = self.place(code)
            gain = torch.sigmoid(self.width_gain(states).float()) / reference[..., 1:].clamp(min=NARROWEST)
            sharp = code * gain if number == 0 else code * self.place_gain(states) * gain
            states = layer(states, QueryPosition(position, sharp), seen)
            outputs.append(self.norm(states))
            if number < len(self.layers) - 1:  # what the last layer would move it to, nothing reads
                moved = torch.sigmoid(self.refine(states).float() + inverse_sigmoid(reference))
                references.append(moved)
                reference = moved.detach()
        return torch.stack(outputs), torch.stack(references)


class ReferenceLayer(nn.Module):
    """Self-attention with content and position added, cross-attention with content and position side by side, feed-forward."""

    def __init__(
        self, dim: int, num_heads: int, hidden: int, *, dropout: float, stochastic_depth: bool, is_first: bool
    ) -> None:
        super().__init__()
        self.around = PlacedSelfAttention(dim, num_heads, dropout=dropout)
        self.there = PlacedCrossAttention(dim, num_heads, dropout=dropout, adds_position=is_first)
        self.feed_forward = FeedForward(dim, hidden, dropout=dropout, activation="prelu")
        self.residuals = nn.ModuleList(
            Residual(dim, dropout=dropout, stochastic_depth=stochastic_depth) for _ in range(3)
        )

    def forward(
        self, states: Float[Tensor, "items queries dim"], position: QueryPosition, memory: Memory
    ) -> Float[Tensor, "items queries dim"]:
        def look_around(here: Tensor) -> Tensor:
            around: Tensor = self.around(here, position.code)
            return around

        def look_there(here: Tensor) -> Tensor:
            there: Tensor = self.there(here, position, memory)
            return there

        states = self.residuals[0](states, look_around)
        states = self.residuals[1](states, look_there)
        out: Tensor = self.residuals[2](states, self.feed_forward)
        return out


class PlacedSelfAttention(nn.Module):
    """Queries and keys are a projection of the content plus one of the position; values are content alone."""

    def __init__(self, dim: int, num_heads: int, *, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.content = nn.Linear(dim, 3 * dim)
        """Makes queries, keys and values of the content."""
        self.place = nn.Linear(dim, 2 * dim)
        """Makes the positions of queries and keys."""
        self.out = nn.Linear(dim, dim)
        _begin_evenly(self)

    def forward(
        self, states: Float[Tensor, "items queries dim"], position: Float[Tensor, "items queries dim"]
    ) -> Float[Tensor, "items queries dim"]:
        queries, keys, values = self.content(states).chunk(3, dim=-1)
        query_positions, key_positions = self.place(position).chunk(2, dim=-1)
        queries, keys = _split(queries + query_positions, self.num_heads), _split(keys + key_positions, self.num_heads)
        mixed = mix_heads(queries, keys, _split(values, self.num_heads), None, self.dropout if self.training else 0.0)
        out: Tensor = self.out(mixed)
        return out


class PlacedCrossAttention(nn.Module):
    """Per head, [content | position] of the query meets [content | position] of the memory, so heads are twice as wide."""

    def __init__(self, dim: int, num_heads: int, *, dropout: float, adds_position: bool) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.content = nn.Linear(dim, dim)
        self.sharp_place = nn.Linear(dim, dim)
        self.place = nn.Linear(dim, dim) if adds_position else None
        """In the first layer, where the content is nothing yet, positions are added to the content as well."""
        self.keys_values = nn.Linear(dim, 2 * dim)
        self.key_place = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        _begin_evenly(self)

    def forward(
        self, states: Float[Tensor, "items queries dim"], position: QueryPosition, memory: Memory
    ) -> Float[Tensor, "items queries dim"]:
        queries, key_positions = self.content(states), self.key_place(memory.positions)
        keys, values = self.keys_values(memory.values).chunk(2, dim=-1)
        if self.place is not None:
            queries, keys = queries + self.place(position.code), keys + key_positions
        parts = (queries, self.sharp_place(position.sharp), keys, key_positions, values)
        of_queries, of_positions, of_keys, of_key_positions, of_values = (
            _split(part, self.num_heads) for part in parts
        )
        asked, offered = torch.cat([of_queries, of_positions], dim=-1), torch.cat([of_keys, of_key_positions], dim=-1)
        dropout = self.dropout if self.training else 0.0
        out: Tensor = self.out(mix_heads(asked, offered, of_values, over_heads(memory.mask), dropout))
        return out


def _split(x: Tensor, num_heads: int) -> Float[Tensor, "items heads tokens head_dim"]:
    split: Tensor = torch.unflatten(x, -1, (num_heads, x.shape[-1] // num_heads)).transpose(1, 2)
    return split


def _begin_evenly(module: nn.Module) -> None:
    """Every square block of a fused projection begins as if it stood alone (Xavier, no bias)."""
    for linear in module.modules():
        if isinstance(linear, nn.Linear):
            for block in linear.weight.split(linear.in_features):
                nn.init.xavier_uniform_(block)
            nn.init.zeros_(linear.bias)
