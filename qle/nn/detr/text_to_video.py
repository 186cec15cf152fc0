"""Clips listen to the words of the query (QD-DETR): every clip becomes what the query makes of it.

clips (items, clips, dim) + words (items, words, dim) -> TextToVideoLayer -> clips of the same shape

The roles are generic: MESM also lets words listen to clips.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.nn.attention import Attention, FeedForward
from qle.nn.residual import branch_dropout
from qle.nn.xavier import begin_as_published


class Absorb(nn.Module):
    """What was heard is added to the clips: x = clips + heard; norm2(x + feed_forward(norm1(x))).

    The feed-forward part reads a normalised copy and adds to the sum that is not."""

    def __init__(self, dim: int, hidden: int, *, dropout: float, stochastic_depth: bool = False) -> None:
        super().__init__()
        self.feed_forward = FeedForward(dim, hidden, dropout=dropout, activation="prelu")
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.drop = branch_dropout(dropout, stochastic_depth=stochastic_depth)

    def forward(
        self, clips: Float[Tensor, "items clips dim"], heard: Float[Tensor, "items clips dim"]
    ) -> Float[Tensor, "items clips dim"]:
        x = clips + self.drop(heard)
        out: Tensor = self.norms[1](x + self.drop(self.feed_forward(self.norms[0](x))))
        return out


class TextToVideoLayer(nn.Module):
    """Cross-attention from clips to words, then `Absorb`."""

    def __init__(
        self, dim: int, num_heads: int, hidden: int, *, dropout: float, stochastic_depth: bool = False
    ) -> None:
        super().__init__()
        self.attention = Attention(dim, num_heads, dropout=dropout)
        self.absorb = Absorb(dim, hidden, dropout=dropout, stochastic_depth=stochastic_depth)
        begin_as_published(self)

    def forward(
        self,
        clips: Float[Tensor, "items clips dim"],
        clip_positions: Float[Tensor, "items clips dim"],
        words: Float[Tensor, "items words dim"],
        word_positions: Float[Tensor, "items words dim"] | None,
        mask: Bool[Tensor, "items ..."],
    ) -> Float[Tensor, "items clips dim"]:
        """The mask says which words may be heard: (items, words), (items, clips or 1, words) or (items, heads, clips, words)."""
        keys = words if word_positions is None else words + word_positions
        heard = self.attention.look(clips + clip_positions, keys, words, mask)
        out: Tensor = self.absorb(clips, heard)
        return out


def published_mask(
    clip_mask: Bool[Tensor, "items clips"], word_mask: Bool[Tensor, "items words"], num_heads: int
) -> Bool[Tensor, "items heads clips words"]:
    """parity: the published code lays the masks of (padded clip, padded word) out head by head and reads them item by item,
    so head h of item b looks through the mask of item (b * heads + h) mod items and loses real words of real clips."""
    items = len(clip_mask)
    either = clip_mask[:, :, None] | word_mask[:, None, :]
    taken = torch.arange(items * num_heads, device=clip_mask.device).view(items, num_heads) % items
    return either[taken] & word_mask[:, None, None, :]
