"""A video as a text sees it: its frames, pooled by how much each has to do with the words.

    texts (texts, dim) + frames (videos, frames, dim) -> one vector for every (video, text)

After X-Pool (Gorti et al. 2022), as T-MASS uses it: cross attention of the text to the frames, no residual around it, then one
linear layer with a residual. Nothing of the text is in the result but which frames were looked at.

The products are taken in another order than usual: keys are applied to the few texts instead of to all frames, and values to
the mixed frames. The numbers are the same up to rounding, and one text against a thousand videos costs a tenth.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qle.nn.dropout import Dropout


class TextPooling(nn.Module):
    """Begins as a plain softmax over frames by scaled products: all matrices are the identity."""

    def __init__(self, dim: int, num_heads: int = 1, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.enter_norm = nn.LayerNorm(dim)
        """One for texts and frames, so that both keep to one space."""
        self.queries, self.keys, self.values, self.out, self.linear = (_identity(dim) for _ in range(5))
        self.attended_norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)
        self.pooled_norm = nn.LayerNorm(dim)

    def forward(
        self, texts: Float[Tensor, "texts dim"], frames: Float[Tensor, "videos frames dim"]
    ) -> Float[Tensor, "videos texts dim"]:
        """Every video for every text: videos * texts * dim numbers, so callers with many of both take tiles."""
        return self.finish(self.attend(texts, frames))

    def attend(
        self, texts: Float[Tensor, "texts dim"], frames: Float[Tensor, "videos frames dim"]
    ) -> Float[Tensor, "videos texts dim"]:
        """The cross attention, with its output projection."""
        entered = self.enter_norm(frames)
        asked = self.queries(self.enter_norm(texts)).unflatten(-1, (self.num_heads, -1)) * self.head_dim**-0.5
        # q . (K f + b) = (K' q) . f + q . b: K meets a text once, not every frame of every video. The last part is the same
        # for all frames and changes no share; it is kept so that every parameter has its gradient.
        looked_for = torch.einsum("nhe,hed->nhd", asked, self._by_head(self.keys.weight))
        shift = torch.einsum("nhe,he->nh", asked, self._by_head(self.keys.bias))
        logit = torch.einsum("nhd,vfd->vnhf", looked_for, entered) + shift[..., None]
        mixed = torch.einsum("vnhf,vfd->vnhd", logit.softmax(-1).to(entered.dtype), entered)
        # Shares add up to 1, so mixing values is the value of the mix.
        valued = torch.einsum("vnhd,hed->vnhe", mixed, self._by_head(self.values.weight)).flatten(2)
        out: Tensor = self.out(valued + self.values.bias)
        return out

    def finish(self, attended: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape dim"]:
        """What follows the attention."""
        looked = self.attended_norm(attended)
        pooled: Tensor = self.pooled_norm(looked + self.dropout(self.linear(looked)))
        return pooled

    def pool_alone(self, frame: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape dim"]:
        """The pooled vector of a video of one frame: there is nothing to choose from, so no text is needed."""
        return self.finish(self.out(self.values(self.enter_norm(frame))))

    def _by_head(self, parameter: Tensor) -> Tensor:
        parts: Tensor = parameter.unflatten(0, (self.num_heads, self.head_dim))
        return parts


def _identity(dim: int) -> nn.Linear:
    linear = nn.Linear(dim, dim)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
