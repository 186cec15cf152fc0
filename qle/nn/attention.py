"""Multi-head attention over one fused projection, laid out like torch's `nn.MultiheadAttention` so that its weights fit.

Masks are True where a key may be seen. A query that may see no key at all gets zeros, never NaN.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.nn.dropout import Dropout
from qle.nn.dropout import dropout as drop

Activation = Literal["relu", "prelu"]

PLAIN_SOURCES = 256
"""Up to so many keys a CPU is faster with plain matrix products than with torch's fused kernel (words: 4 times)."""


class Attention(nn.Module):
    """Projections in and out; `attend` is left to the caller who knows the layout of time and space."""

    def __init__(self, dim: int, num_heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.dropout = num_heads, dim // num_heads, dropout
        self.queries = nn.Linear(dim, dim)
        self.keys_values = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        for linear in (self.queries, self.keys_values):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        x: Float[Tensor, "batch targets dim"],
        memory: Float[Tensor, "batch sources dim"] | None = None,
        mask: Bool[Tensor, " batch #targets sources"] | None = None,
    ) -> Float[Tensor, "batch targets dim"]:
        """Attention of x to memory (to itself without one)."""
        keys, values = self.split_keys_values(x if memory is None else memory)
        return self.attend(self.split_queries(x), keys, values, None if mask is None else mask[:, None])

    def split_queries(self, x: Float[Tensor, "batch targets dim"]) -> Float[Tensor, "batch heads targets head_dim"]:
        return self._split(self.queries(x))

    def split_keys_values(self, memory: Float[Tensor, "batch sources dim"]) -> tuple[Tensor, Tensor]:
        """Each "batch heads sources head_dim"."""
        keys, values = self.keys_values(memory).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def look(
        self,
        queries: Float[Tensor, "batch targets dim"],
        keys: Float[Tensor, "batch sources dim"],
        values: Float[Tensor, "batch sources dim"],
        mask: Bool[Tensor, "batch ..."] | None = None,
    ) -> Float[Tensor, "batch targets dim"]:
        """Where keys know their place and values do not. The mask is (batch, sources), (batch, targets or 1, sources) or
        (batch, heads, targets, sources)."""
        (of_keys, of_values), (keys_bias, values_bias) = (
            self.keys_values.weight.chunk(2),
            self.keys_values.bias.chunk(2),
        )
        split_keys = self._split(F.linear(keys, of_keys, keys_bias))
        split_values = self._split(F.linear(values, of_values, values_bias))
        return self.attend(self.split_queries(queries), split_keys, split_values, over_heads(mask))

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Bool[Tensor, " batch #heads #targets sources"] | None
    ) -> Float[Tensor, "batch targets dim"]:
        out: Tensor = self.out(mix_heads(queries, keys, values, mask, self.dropout if self.training else 0.0))
        return out

    def listen(
        self,
        x: Float[Tensor, "batch copies targets dim"],
        memory: Float[Tensor, "batch queries sources dim"],
        mask: Bool[Tensor, "batch queries sources"],
    ) -> Float[Tensor, "batch queries targets dim"]:
        """Attention of many targets (patches) to several short memories (the words of queries). `copies` is 1 where all
        memories are asked by the same targets, else the number of queries."""
        is_short = self.num_heads * memory.shape[2] <= self.out.in_features
        if is_short and not (self.training and self.dropout):
            return self._listen_folded(x, memory, mask)
        asked = self.split_queries(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        asked = asked.expand(*mask.shape[:2], *asked.shape[2:]).flatten(0, 1)
        keys, values = self.split_keys_values(memory.flatten(0, 1))
        heard: Tensor = self.attend(asked, keys, values, mask.flatten(0, 1)[:, None, None]).unflatten(0, mask.shape[:2])
        return heard

    def _listen_folded(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """The same numbers but for rounding, with both projections of the targets done to the few sources instead:
        (W x + b) . k = x . W'k + b . k, and what is heard is projected before it is weighted."""
        num_heads, shape = self.num_heads, mask.shape
        keys, values = self.split_keys_values(memory.flatten(0, 1))
        keys = keys * self.head_dim**-0.5
        is_seen = mask.any(-1).flatten()[:, None, None, None]  # else: a softmax over nothing, so over all, of zeros
        hidden = ~(mask.flatten(0, 1)[:, None, :, None] | ~is_seen)
        offset = keys @ self.queries.bias.view(num_heads, self.head_dim, 1)
        offset = offset.masked_fill(hidden, float("-inf"))
        keys = keys @ self.queries.weight.view(num_heads, self.head_dim, -1)
        values = values * is_seen.to(values.dtype) @ self.out.weight.t().view(num_heads, self.head_dim, -1)
        values = values + self.out.bias / num_heads  # the weights of each head add up to 1
        # Words stand in rows and patches in columns: a softmax down long columns is faster than along rows of ten numbers.
        size = x.shape[0] * x.shape[1], -1
        weight = torch.baddbmm(
            offset.reshape(*size, 1), keys.reshape(*size, keys.shape[-1]), x.flatten(0, 1).transpose(1, 2)
        )
        weight = weight.view(len(keys), num_heads, shape[2], -1).softmax(2).flatten(1, 2)
        heard: Tensor = (weight.transpose(1, 2) @ values.flatten(1, 2)).unflatten(0, shape[:2])
        return heard

    def _split(self, x: Tensor) -> Tensor:
        split: Tensor = x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
        return split


def mix_heads(
    queries: Float[Tensor, "batch heads targets key_dim"],
    keys: Float[Tensor, "batch heads sources key_dim"],
    values: Float[Tensor, "batch heads sources value_dim"],
    mask: Bool[Tensor, " batch #heads #targets sources"] | None,
    dropout: float,
) -> Float[Tensor, "batch targets dim"]:
    """Scaled dot-product attention of all heads, joined again."""
    if mask is None:
        return _mix(queries, keys, values, None, dropout).transpose(1, 2).flatten(2)
    # A row of the mask without any True would be a softmax over nothing.
    is_seen = mask.any(dim=-1, keepdim=True)
    mixed = _mix(queries, keys, values, mask | ~is_seen, dropout) * is_seen.to(values.dtype)
    return mixed.transpose(1, 2).flatten(2)


def over_heads(mask: Bool[Tensor, "batch ..."] | None) -> Bool[Tensor, " batch #heads #targets sources"] | None:
    """A mask of keys, or of targets and keys, for all heads alike."""
    if mask is None or mask.ndim == 4:
        return mask
    return mask[:, None, None] if mask.ndim == 2 else mask[:, None]


def _mix(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    if queries.device.type == "cpu" and keys.shape[2] <= PLAIN_SOURCES:
        weight = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
        if mask is not None:
            weight = weight.masked_fill(~mask, float("-inf"))
        return drop(weight.softmax(-1), dropout) @ values
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, dropout_p=dropout)


class FeedForward(nn.Sequential):
    """Two linear layers with a ReLU between them, or a PReLU of one learned slope."""

    def __init__(self, dim: int, hidden: int, *, dropout: float = 0.0, activation: Activation = "relu") -> None:
        between = nn.ReLU() if activation == "relu" else nn.PReLU()
        super().__init__(nn.Linear(dim, hidden), between, Dropout(dropout), nn.Linear(hidden, dim))


def band(
    num_targets: int, num_sources: int, offset: int, reach: int, device: torch.device
) -> Bool[Tensor, "targets sources"]:
    """True where |target + offset - source| <= reach."""
    target = torch.arange(num_targets, device=device)[:, None] + offset
    source = torch.arange(num_sources, device=device)[None, :]
    return (target - source).abs() <= reach


def grid_band(rows: int, cols: int, reach: int) -> Bool[Tensor, "cells cells"]:
    """True between cells of a grid that are at most `reach` rows and columns apart."""
    row, col = torch.arange(rows * cols) // cols, torch.arange(rows * cols) % cols
    apart = torch.maximum((row[:, None] - row).abs(), (col[:, None] - col).abs())
    return apart <= reach
