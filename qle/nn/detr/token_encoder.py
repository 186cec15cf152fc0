"""A learned token goes through the encoder in front of the clips, and comes out standing for the whole item."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.nn.detr.encoder import Encoder


class TokenEncoder(nn.Module):
    """The encoder, the token and its place."""

    def __init__(self, encoder: Encoder, dim: int, *, is_seen: bool = True) -> None:
        """`is_seen` says whether clips may look at the token; it always looks at them."""
        super().__init__()
        self.encoder, self.is_seen = encoder, is_seen
        self.token, self.place = nn.Parameter(torch.randn(dim)), nn.Parameter(torch.randn(dim))

    def forward(
        self,
        clips: Float[Tensor, "items clips dim"],
        positions: Float[Tensor, "items clips dim"],
        mask: Bool[Tensor, "items clips"],
    ) -> tuple[Float[Tensor, "items clips dim"], Float[Tensor, "items dim"]]:
        """Clips and the token, encoded."""
        items = len(clips)
        x = torch.cat([self.token.to(clips.dtype).expand(items, 1, -1), clips], dim=1)
        all_positions = torch.cat([self.place.expand(items, 1, -1), positions], dim=1)
        seen = torch.cat([mask.new_full((items, 1), self.is_seen), mask], dim=1)
        encoded = self.encoder(x, all_positions, seen)
        return encoded[:, 1:], encoded[:, 0]
