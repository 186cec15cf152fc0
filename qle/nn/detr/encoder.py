"""The encoder of the DETR family: self-attention in which queries and keys know their place and values do not.

x (items, tokens, dim) + positions + mask -> Encoder -> the same shape
"""

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.nn.attention import Activation, Attention, FeedForward
from qle.nn.residual import Residual
from qle.nn.xavier import begin_as_published


class EncoderLayer(nn.Module):
    """Self-attention, then a feed-forward part, each with its residual and norm."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden: int,
        *,
        dropout: float,
        activation: Activation = "relu",
        pre_norm: bool = False,
        stochastic_depth: bool = False,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.attention = Attention(dim, num_heads, dropout=dropout)
        self.feed_forward = FeedForward(dim, hidden, dropout=dropout, activation=activation)
        self.residuals = nn.ModuleList(
            Residual(dim, dropout=dropout, pre_norm=pre_norm, stochastic_depth=stochastic_depth) for _ in range(2)
        )
        begin_as_published(self)

    def forward(
        self,
        x: Float[Tensor, "items tokens dim"],
        positions: Float[Tensor, "items tokens dim"],
        mask: Bool[Tensor, "items tokens"],
    ) -> Float[Tensor, "items tokens dim"]:
        def look(here: Tensor) -> Tensor:
            placed = here + positions
            return self.attention.look(placed, placed, here, mask)

        out: Tensor = self.residuals[1](self.residuals[0](x, look), self.feed_forward)
        return out


class Encoder(nn.Module):
    """Layers of one width; a last norm where they are pre-norm."""

    def __init__(self, layers: Sequence[EncoderLayer], final_norm: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(layers[0].dim) if final_norm else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "items tokens dim"],
        positions: Float[Tensor, "items tokens dim"],
        mask: Bool[Tensor, "items tokens"],
    ) -> Float[Tensor, "items tokens dim"]:
        for layer in self.layers:
            x = layer(x, positions, mask)
        out: Tensor = self.norm(x)
        return out
