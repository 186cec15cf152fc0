"""Attention of clips to words with a way out: learned dummies take the weight of what the words do not explain.

Dummies and words share one softmax, but only words hand anything on, so a clip that has nothing to do with the query stays
as it is. Nothing is projected before: queries, keys and values enter as they are.

clips + [dummies, words] -> CalibratedLayer -> clips, weights (items, clips, dummies + words)
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.nn.detr.text_to_video import Absorb
from qle.nn.dropout import dropout as drop
from qle.nn.xavier import begin_as_published


class DummyAttention(nn.Module):
    """Weights come back too, as the mean over heads: they are what is taught where the words are."""

    def __init__(self, dim: int, num_heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.out = nn.Linear(dim, dim)

    def forward(
        self,
        clips: Float[Tensor, "items clips dim"],
        keys: Float[Tensor, "items sources dim"],
        words: Float[Tensor, "items words dim"],
        mask: Bool[Tensor, " items #heads #clips sources"],
    ) -> tuple[Float[Tensor, "items clips dim"], Float[Tensor, "items clips sources"]]:
        """`keys` are dummies, then words; `words` are the values of the last places. Every clip sees at least one key."""
        queries, keys, words = self._split(clips), self._split(keys), self._split(words)
        logit = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
        weights = logit.masked_fill(~mask, float("-inf")).softmax(-1)
        kept = drop(weights, self.dropout) if self.training else weights
        mixed = kept[..., -words.shape[2] :] @ words
        return self.out(mixed.transpose(1, 2).flatten(2)), weights.mean(dim=1)

    def nothing(self, x: Float[Tensor, "items targets dim"]) -> Float[Tensor, "items targets dim"]:
        """What comes out when there is nothing to attend to: the bias of the output."""
        return torch.zeros_like(x) + self.out.bias

    def _split(self, x: Tensor) -> Tensor:
        split: Tensor = torch.unflatten(x, -1, (self.num_heads, x.shape[-1] // self.num_heads)).transpose(1, 2)
        return split


class CalibratedLayer(nn.Module):
    """A text-to-video layer with dummies."""

    def __init__(self, dim: int, num_heads: int, hidden: int, *, dropout: float) -> None:
        super().__init__()
        self.attention = DummyAttention(dim, num_heads, dropout=dropout)
        self.absorb = Absorb(dim, hidden, dropout=dropout, stochastic_depth=True)
        begin_as_published(self)

    def forward(
        self,
        clips: Float[Tensor, "items clips dim"],
        clip_positions: Float[Tensor, "items clips dim"],
        keys: Float[Tensor, "items sources dim"],
        words: Float[Tensor, "items words dim"],
        mask: Bool[Tensor, " items #heads #clips sources"],
    ) -> tuple[Float[Tensor, "items clips dim"], Float[Tensor, "items clips sources"]]:
        heard, weights = self.attention(clips + clip_positions, keys, words, mask)
        return self.absorb(clips, heard), weights

    def alone(self, x: Float[Tensor, "items targets dim"]) -> Float[Tensor, "items targets dim"]:
        """The same step for what has nothing to listen to."""
        out: Tensor = self.absorb(x, self.attention.nothing(x))
        return out
