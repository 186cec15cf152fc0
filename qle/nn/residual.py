"""x + branch(x) with its norm: the one step that all transformer layers here are made of."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from qle.nn.dropout import Dropout, StochasticDepth


class Residual(nn.Module):
    """norm(x + branch(x)), or with `pre_norm` x + branch(norm(x))."""

    def __init__(self, dim: int, *, dropout: float, pre_norm: bool = False, stochastic_depth: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.drop = branch_dropout(dropout, stochastic_depth=stochastic_depth)
        self.pre_norm = pre_norm

    def forward(
        self, x: Float[Tensor, "items tokens dim"], branch: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "items tokens dim"]:
        out: Tensor = x + self.drop(branch(self.norm(x))) if self.pre_norm else self.norm(x + self.drop(branch(x)))
        return out


def branch_dropout(share: float, *, stochastic_depth: bool) -> nn.Module:
    """What is left out of a branch in training: single numbers, or the whole branch of an item."""
    return StochasticDepth(share) if stochastic_depth else Dropout(share)
