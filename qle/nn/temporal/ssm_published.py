"""parity: the state space block that the published QLE code falls back to. Its b and c are constants, so it is not selective;
it looks only back, knows no padding, and walks row by row. Kept to load such checkpoints, not to train new ones.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class PublishedSsmMixer(nn.Module):
    """Features of rows -> features of rows, with the same call as the other mixers."""

    def __init__(self, dim: int, *, num_layers: int, state_dim: int, kernel: int, expand: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            PublishedSsmBlock(dim, state_dim=state_dim, kernel=kernel, expand=expand) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        features: Float[Tensor, "batch time dim"],
        times_s: Float[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time dim"]:
        for layer in self.layers:
            features = features + layer(features)
        mixed: Tensor = self.norm(features)
        return mixed


class PublishedSsmBlock(nn.Module):
    """Names of parameters as published."""

    def __init__(self, dim: int, *, state_dim: int, kernel: int, expand: int) -> None:
        super().__init__()
        self.kernel, inner = kernel, expand * dim
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, kernel, groups=inner)
        self.x_proj = nn.Linear(inner, 2 * state_dim, bias=False)  # parity: never used, but in every checkpoint
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.dt_proj = nn.Linear(inner, inner)
        self.A_log = nn.Parameter(torch.zeros(inner, state_dim))
        self.B = nn.Parameter(torch.randn(inner, state_dim))
        self.C = nn.Parameter(torch.randn(inner, state_dim))
        self.D = nn.Parameter(torch.ones(inner))

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        values, gate = self.in_proj(x).chunk(2, dim=-1)
        values = F.silu(self.conv1d(F.pad(values.transpose(1, 2), (self.kernel - 1, 0))).transpose(1, 2))
        step = F.softplus(self.dt_proj(values))
        rate = self.A_log.exp()
        state = values.new_zeros(len(x), *self.B.shape)
        rows = []
        for now, value in zip(step.unbind(1), values.unbind(1), strict=True):
            state = torch.exp(-now[..., None] * rate) * state + (now * value)[..., None] * self.B
            rows.append((state * self.C).sum(-1))
        mixed = torch.stack(rows, dim=1) + values * self.D
        out: Tensor = self.out_proj(mixed * F.silu(gate))
        return out
