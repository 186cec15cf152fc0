"""A selective state space mixer: linear time, both directions, any length in one pass.

    h_t = exp(-step_t * rate) h_{t-1} + step_t * b_t x_t        y_t = c_t . h_t + skip * x_t

step, b and c depend on the input (that is what "selective" means; the published built-in block has constants instead).
One decay rate a head, so that the recurrence over a chunk is a masked matrix product (the "state space duality" of Mamba-2,
Dao and Gu 2024) and only the states between chunks are carried on: a parallel scan with matrix products in it.
Rows outside the mask pass the state on unchanged.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.nn.dropout import Dropout

CHUNK = 64
"""Rows that are mixed by one matrix product."""
KERNEL = 4
"""Rows of the short convolution in front."""


class SsmMixer(nn.Module):
    """Features of rows -> features of rows, with the same call as the transformer."""

    def __init__(self, dim: int, *, num_layers: int, num_heads: int, state_dim: int, dropout: float) -> None:
        super().__init__()
        self.forth, self.back = (
            nn.ModuleList(SelectiveScan(dim, num_heads=num_heads, state_dim=state_dim) for _ in range(num_layers))
            for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(num_layers))
        self.last_norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        features: Float[Tensor, "batch time dim"],
        times_s: Float[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time dim"]:
        """`times_s` is not used: rows come at one rate, and the steps are learned."""
        for norm, forth, back in zip(self.norms, self.forth, self.back, strict=True):
            x = norm(features)
            both = forth(x, mask) + back(x.flip(1), mask.flip(1)).flip(1)
            features = features + self.dropout(both)
        mixed: Tensor = self.last_norm(features)
        return mixed


class SelectiveScan(nn.Module):
    """One direction of one layer."""

    def __init__(self, dim: int, *, num_heads: int, state_dim: int) -> None:
        super().__init__()
        self.num_heads, self.state_dim = num_heads, state_dim
        self.inner = 2 * dim
        self.into = nn.Linear(dim, 2 * self.inner, bias=False)
        self.convolution = nn.Conv1d(self.inner, self.inner, KERNEL, groups=self.inner)
        self.select = nn.Linear(self.inner, num_heads + 2 * state_dim)
        self.log_rate = nn.Parameter(torch.linspace(-3.0, 1.0, num_heads))
        self.skip = nn.Parameter(torch.ones(num_heads))
        self.out = nn.Linear(self.inner, dim, bias=False)
        nn.init.uniform_(self.select.bias[:num_heads], -3.0, 0.0)

    def forward(self, x: Float[Tensor, "batch time dim"], mask: Bool[Tensor, "batch time"]) -> Tensor:
        values, gate = self.into(x).chunk(2, dim=-1)
        values = values * mask[..., None].to(values.dtype)
        values = F.silu(self.convolution(F.pad(values.transpose(1, 2), (KERNEL - 1, 0))).transpose(1, 2))
        step, b, c = self.select(values).split([self.num_heads, self.state_dim, self.state_dim], dim=-1)
        step = F.softplus(step.float()) * mask[..., None]
        heads = values.unflatten(-1, (self.num_heads, -1))
        mixed = scan(heads.float(), step, step * self.log_rate.exp(), b.float(), c.float())
        mixed = mixed + heads * self.skip[:, None]
        out: Tensor = self.out(mixed.flatten(2).to(x.dtype) * F.silu(gate))
        return out


def scan(
    x: Float[Tensor, "batch time heads width"],
    step: Float[Tensor, "batch time heads"],
    decay: Float[Tensor, "batch time heads"],
    b: Float[Tensor, "batch time state"],
    c: Float[Tensor, "batch time state"],
) -> Float[Tensor, "batch time heads width"]:
    """y_t = c_t . h_t with h_t = exp(-decay_t) h_{t-1} + step_t b_t x_t, all t at once. decay >= 0."""
    num_rows = x.shape[1]
    padding = -num_rows % CHUNK
    x, step, decay, b, c = (
        F.pad(part, (0, 0) * (part.ndim - 2) + (0, padding)).unflatten(1, (-1, CHUNK))
        for part in (x, step, decay, b, c)
    )
    total = decay.cumsum(2)  # (batch, chunks, rows, heads): decay since the beginning of the chunk
    x = x * step[..., None]
    # Inside a chunk: row t hears row s <= t through c_t . b_s, faded by the decay between them.
    between = total[:, :, :, None] - total[:, :, None, :]
    is_past = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=x.device).tril()[None, None, :, :, None]
    fade = torch.exp(-between.masked_fill(~is_past, float("inf")))
    inside = torch.einsum("nkts,nktsh,nkshw->nkthw", torch.einsum("nktd,nksd->nkts", c, b), fade, x)
    # Between chunks: the state that each chunk leaves, carried on.
    left = torch.einsum("nksd,nksh,nkshw->nkhdw", b, torch.exp(total - total[:, :, -1:]), x)
    carried = _carry(left, total[:, :, -1])
    across = torch.einsum("nktd,nkth,nkhdw->nkthw", c, torch.exp(-total), carried)
    return (inside + across).flatten(1, 2)[:, :num_rows]


def _carry(left: Tensor, decay: Tensor) -> Tensor:
    """The state at the beginning of every chunk: doubling the stride, log2(chunks) steps instead of one a chunk."""
    state, gone = left, decay
    stride = 1
    while stride < left.shape[1]:
        earlier = F.pad(state, (0, 0, 0, 0, 0, 0, stride, 0))[:, :-stride]
        state = state + torch.exp(-gone)[..., None, None] * earlier
        gone = gone + F.pad(gone, (0, 0, stride, 0))[:, :-stride]
        stride *= 2
    return F.pad(state, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1]
