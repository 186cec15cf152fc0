"""A cell and its eight neighbours: tokens know what is in their patch, not how patches lie to each other."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qle.nn.dropout import Dropout


class Stem(nn.Module):
    """Each cell with its eight neighbours: a ring and a disc differ in how their cells lie, not in what is in them."""

    def __init__(self, dim: int, channels: int, *, dropout: float) -> None:
        super().__init__()
        self.around = nn.Conv2d(dim, channels, 3, padding=1)
        self.back = nn.Linear(channels, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, cells: Float[Tensor, "rows height width dim"]) -> Float[Tensor, "rows height width dim"]:
        seen = F.relu(self.around(cells.permute(0, 3, 1, 2)), inplace=True).permute(0, 2, 3, 1)
        stemmed: Tensor = self.norm(cells + self.back(self.dropout(seen)))
        return stemmed
