"""Does the query happen anywhere? One logit for all rows of a video, beside the logit of each row.

    features and refined logits of the rows of one query -> where the logits are high -> presence logit

The highest logit of a row answers half of this: of many rows one is always a little high. This output is trained on the
question itself, with queries that nearly happen as negatives. It begins as the mean of the logits where they are high, and
learns to correct that by what is seen there, so it hardly depends on how many rows there are: windows in training, whole
videos afterwards.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.nn.dropout import Dropout


class Presence(nn.Module):
    """Rows of a query, weighted by the softmax of their logits, to one logit."""

    def __init__(self, dim: int, *, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, 1)
        self.dropout = Dropout(dropout)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        features: Float[Tensor, "batch time dim"],
        logit: Float[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, " batch"]:
        """Rows outside of the mask take no part; all rows do where there is no other."""
        mask = mask | ~mask.any(-1, keepdim=True)
        share = logit.float().masked_fill(~mask, -torch.inf).softmax(-1)
        high = (share * logit.masked_fill(~mask, 0.0)).sum(-1)
        seen = torch.einsum("bt,btd->bd", share.to(features.dtype), features)
        correction = self.out(self.dropout(F.relu(self.hidden(self.norm(seen)))))
        total: Tensor = high + correction.squeeze(-1)
        return total


def anywhere(
    relevance: Float[Tensor, "windows slots time"],
    known: Bool[Tensor, "windows slots time"],
    row_mask: Bool[Tensor, "windows time"],
) -> tuple[Float[Tensor, "windows slots"], Bool[Tensor, "windows slots"]]:
    """1 where some row is relevant, else 0; and of which that is known: a window with a row that nobody has judged may hold
    the query there."""
    happens = (relevance * known > 0).any(-1)
    is_judged = known.any(-1) & (known | ~row_mask[:, None]).all(-1)
    return happens.to(relevance.dtype), happens | is_judged
