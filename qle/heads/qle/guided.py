"""Patches listen to words: one layer of language-guided attention, for many queries about the same rows.

Per row and query: self-attention of the patches, cross-attention from patches to words, feed-forward; each is added and
normalised (post-norm), as in the published QLE head, whose weights fit. What does not depend on the query is done once:
in the first layer that is the whole self-attention and the projection of the patches for the cross-attention.
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.nn.attention import Attention, FeedForward
from qle.nn.dropout import Dropout


class GuidedLayer(nn.Module):
    """`look` (patches among themselves) and `listen` (to the words), which makes rows differ between queries."""

    def __init__(self, dim: int, num_heads: int, hidden: int, *, dropout: float, looks: bool = True) -> None:
        super().__init__()
        self.self_attention = Attention(dim, num_heads, dropout=dropout) if looks else None
        self.word_attention = Attention(dim, num_heads, dropout=dropout)
        self.feed_forward = FeedForward(dim, hidden, dropout=dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) if number or looks else nn.Identity() for number in range(3))
        self.dropout = Dropout(dropout)

    def look(
        self, patches: Float[Tensor, "rows patches dim"], near: Bool[Tensor, "patches patches"] | None
    ) -> Float[Tensor, "rows patches dim"]:
        """Every row alone; `near` says which patches see each other."""
        if self.self_attention is None:
            return patches
        mask = None if near is None else near[None]
        looked: Tensor = self.norms[0](patches + self.dropout(self.self_attention(patches, mask=mask)))
        return looked

    def listen(
        self,
        patches: Float[Tensor, "groups copies patches dim"],
        words: Float[Tensor, "groups queries words dim"],
        word_mask: Bool[Tensor, "groups queries words"],
        gate: Float[Tensor, "groups queries patches 1"] | None = None,
    ) -> Float[Tensor, "groups queries patches dim"]:
        """`copies` is 1 where all queries of a group still share the patches, else the number of queries."""
        heard = self.word_attention.listen(patches, words, word_mask)
        if gate is not None:
            heard = heard * gate
        heard = self.norms[1](patches + self.dropout(heard))
        result: Tensor = self.norms[2](heard + self.dropout(self.feed_forward(heard)))
        return result
