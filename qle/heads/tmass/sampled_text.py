"""A text as a cloud instead of a point: how wide it is, points of it, and how near they come to a video.

    cosines of a text with the frames of a video -> radius;  text + radius * noise -> sampled texts -> cosine with the video

After T-MASS (Wang et al. 2024). The radius depends on the video that the text is held against, so a text has one cloud for each
video. Noise is either uniform in 0..1 (published for most sets: it only ever adds) or normal.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Prior = Literal["uniform01", "normal"]


class SimilarityRadius(nn.Module):
    """radius = exp(linear(cosines with the frames)). Begins with radius 1 but in the first `num_frames` dimensions."""

    def __init__(self, num_frames: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_frames, dim)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, cosines: Float[Tensor, "*pairs frames"]) -> Float[Tensor, "*pairs dim"]:
        radius: Tensor = self.linear(cosines).exp()
        return radius


def draw_noise(
    shape: tuple[int, ...],
    prior: Prior,
    std: float,
    *,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*shape"]:
    """What the radius is multiplied by; `std` counts for the normal prior only."""
    if prior == "uniform01":
        return torch.rand(shape, device=device, generator=generator)
    return torch.randn(shape, device=device, generator=generator) * std


def frame_cosines(
    texts: Float[Tensor, "*pairs dim"], frames: Float[Tensor, "*pairs frames dim"]
) -> Float[Tensor, "*pairs frames"]:
    """Cosine of each text with each of the frames beside it."""
    return torch.einsum("...d,...fd->...f", F.normalize(texts, dim=-1), F.normalize(frames, dim=-1))


def all_frame_cosines(
    texts: Float[Tensor, "texts dim"], frames: Float[Tensor, "videos frames dim"]
) -> Float[Tensor, "videos texts frames"]:
    """Cosine of each text with each frame of each video."""
    return torch.einsum("nd,vfd->vnf", F.normalize(texts, dim=-1), F.normalize(frames, dim=-1))


def cosines_of_trials(
    texts: Float[Tensor, "texts dim"],
    radius: Float[Tensor, "videos texts dim"],
    pooled: Float[Tensor, "videos texts dim"],
    noise: Float[Tensor, "trials dim"],
) -> Float[Tensor, "videos texts trials"]:
    """cos(text + radius * noise, pooled) of every pair, all pairs with the same noise.

    Then no sampled text has to be made: dot product and length are sums over dimensions of (something of the pair) * (noise),
    three matrix products in place of trials * pairs * dim numbers.
    """
    unit = F.normalize(pooled, dim=-1)
    dot = (texts * unit).sum(-1, keepdim=True) + (radius * unit) @ noise.T
    square = texts.square().sum(-1)[:, None] + 2 * (texts * radius) @ noise.T + radius.square() @ noise.square().T
    return dot / square.clamp(min=torch.finfo(square.dtype).tiny).sqrt()


def sampled_texts(
    texts: Float[Tensor, "texts dim"], radius: Float[Tensor, "videos texts dim"], noise: Tensor
) -> Float[Tensor, "videos trials texts dim"]:
    """Unit vectors. noise: "videos trials texts dim", or 1 where all have the same."""
    return F.normalize(texts + radius[:, None] * noise, dim=-1)
