"""Rows listen to their neighbours: a transformer over time with real positions, a padding mask and linear memory.

Each row attends to `reach` rows on either side (None: to all, the published form), so a video of ten hours takes the
memory of its length, and a row far from the ends sees the same whether it stands in a short window or in the whole video.
Rotary angles of the rows' own seconds tell order and distance. Rows outside the mask are neither seen nor counted.
"""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.nn.attention import Attention, FeedForward, band
from qle.nn.dropout import Dropout
from qle.nn.positions import rotary_angles, rotate


class TemporalTransformer(nn.Module):
    """Features of rows -> features of rows."""

    def __init__(
        self,
        dim: int,
        *,
        num_layers: int,
        num_heads: int,
        hidden: int,
        dropout: float,
        reach: int | None,
        knows_order: bool = True,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TemporalLayer(dim, num_heads, hidden, dropout=dropout, reach=reach, knows_order=knows_order)
            for _ in range(num_layers)
        )

    def forward(
        self,
        features: Float[Tensor, "batch time dim"],
        times_s: Float[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time dim"]:
        for layer in self.layers:
            features = layer(features, times_s, mask)
        return features


class TemporalLayer(nn.Module):
    """Self-attention over time and feed-forward, each added and normalised (post-norm)."""

    def __init__(
        self, dim: int, num_heads: int, hidden: int, *, dropout: float, reach: int | None, knows_order: bool
    ) -> None:
        super().__init__()
        self.reach, self.knows_order = reach, knows_order
        self.attention = Attention(dim, num_heads, dropout=dropout)
        self.feed_forward = FeedForward(dim, hidden, dropout=dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, times_s: Tensor, mask: Tensor) -> Tensor:
        x = self.norms[0](x + self.dropout(self._attend(x, times_s, mask)))
        result: Tensor = self.norms[1](x + self.dropout(self.feed_forward(x)))
        return result

    def _attend(self, x: Tensor, times_s: Tensor, mask: Tensor) -> Tensor:
        queries = self.attention.split_queries(x)
        keys, values = self.attention.split_keys_values(x)
        if self.knows_order:
            angles = rotary_angles(times_s, self.attention.head_dim)
            queries, keys = rotate(queries, angles), rotate(keys, angles)
        num_rows = x.shape[1]
        if self.reach is None:
            return self.attention.attend(queries, keys, values, mask[:, None, None])
        if num_rows <= 4 * self.reach:  # one dense product is cheaper than blocks
            near = band(num_rows, num_rows, 0, self.reach, x.device)
            return self.attention.attend(queries, keys, values, near & mask[:, None, None])
        return self._attend_in_blocks(queries, keys, values, mask)

    def _attend_in_blocks(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Blocks of `reach` rows, each against itself and its two neighbours: nothing quadratic, the same numbers."""
        reach, batch, num_rows = self.reach, len(queries), queries.shape[2]
        assert reach is not None
        num_blocks = -(-num_rows // reach)
        padded = num_blocks * reach
        blocks = F.pad(queries, (0, 0, 0, padded - num_rows)).unflatten(2, (num_blocks, reach))
        around = [
            F.pad(part, (0, 0, reach, reach + padded - num_rows)).unfold(2, 3 * reach, reach).transpose(-1, -2)
            for part in (keys, values)
        ]
        seen = F.pad(mask, (reach, reach + padded - num_rows)).unfold(1, 3 * reach, reach)
        near = band(reach, 3 * reach, reach, reach, queries.device)
        allowed = (near & seen[:, :, None]).flatten(0, 1)[:, None]
        queries, keys, values = (part.transpose(1, 2).flatten(0, 1) for part in (blocks, *around))
        mixed: Tensor = self.attention.attend(queries, keys, values, allowed).unflatten(0, (batch, num_blocks))
        return mixed.flatten(1, 2)[:, :num_rows]
