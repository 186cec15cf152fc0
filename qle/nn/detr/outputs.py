"""What heads of the Moment-DETR family say: spans with their classes, and the saliency of clips."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qle.nn.mlp import Mlp
from qle.nn.spans import inverse_sigmoid


class SpanPredictor(nn.Module):
    """States of queries -> logits of (foreground, background) and spans (centre, width), all layers alike."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.label = nn.Linear(dim, 2)
        self.span = Mlp(dim, dim, 2, 3)

    def forward(
        self,
        states: Float[Tensor, "layers items queries dim"],
        references: Float[Tensor, "layers items queries 2"] | None = None,
    ) -> tuple[Float[Tensor, "layers items queries 2"], Float[Tensor, "layers items queries 2"]]:
        """Spans are corrections of the references where there are any."""
        moved = self.span(states).float()
        if references is not None:
            moved = moved + inverse_sigmoid(references)
        return self.label(states), torch.sigmoid(moved)


class TokenSaliency(nn.Module):
    """How well each clip agrees with a token that stands for the whole item: a scaled dot product of projections."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.clips, self.token = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(
        self, clips: Float[Tensor, "items clips dim"], token: Float[Tensor, "items dim"]
    ) -> Float[Tensor, "items clips"]:
        agreed = self.clips(clips).float() * self.token(token).float()[:, None]
        scores: Tensor = agreed.sum(-1) / clips.shape[-1] ** 0.5
        return scores
