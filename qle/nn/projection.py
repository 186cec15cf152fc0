"""Features as they come -> the width of a head.

The norm stands over the *input*, so that streams of any scale enter alike, and dropout over the normalised input: half of a
wide feature vector is hidden at every step, which is what keeps these heads from learning a few hundred videos by heart.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qle.nn.dropout import Dropout


class InputProjection(nn.Module):
    """[LayerNorm, dropout, linear, ReLU] as many times as asked, without the last ReLU."""

    def __init__(self, in_dim: int, dim: int, num_layers: int = 2, dropout: float = 0.5) -> None:
        super().__init__()
        widths = [in_dim, *[dim] * (num_layers - 1)]
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.linears = nn.ModuleList(nn.Linear(width, dim) for width in widths)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "items tokens in_dim"]) -> Float[Tensor, "items tokens dim"]:
        last = len(self.linears) - 1
        for number, (norm, linear) in enumerate(zip(self.norms, self.linears, strict=True)):
            x = linear(self.dropout(norm(x)))
            if number < last:
                x = F.relu(x)
        return x
