"""The built-in encoder: no download, no training, the same numbers everywhere, fast enough to forget.

    (224, 224, 3) -> 4x4 filters -> 56x56 cells -> 14x14 patches of 64 numbers -> two mixing layers -> patch, frame

It exists for demos and tests, so its tokens must carry what a small trained head can use: mean colours and edge energies at
4-pixel detail, where the patch is, and a little of its surroundings. Random projections keep all of that readable.

The weights come from PCG64 through uniform numbers, sums and products only. No sine, logarithm or matrix factorisation:
their last bits differ between processors, and with them the weights digest, which would split one space into two.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from qle.backbones import BackboneRequest
from qle.backbones.base import SINGLE, Backbone, check_frames, machine_facts, refuse_clips
from qle.backbones.preprocess import Preprocess
from qle.errors import ConfigError
from qle.runtime import resolve_device, resolve_dtype
from qle.types import Stream
from qle.weights import load_exactly, state_digest

SEED = 20240
GRID = 14
CELL = 4
"""Pixels of a side of what the first filters see."""
CELLS_IN_PATCH = 4
NUM_FILTERS = 12
DIM = 64


class TinyBackbone(Backbone):
    """Streams `patch` (14, 14, 64) and `frame`, the mean of the patches."""

    def __init__(self, *, preprocess: Preprocess, device: torch.device, compute_dtype: torch.dtype) -> None:
        self.name = "tiny"
        self.preprocess = preprocess
        self.context = SINGLE
        self.streams = (
            Stream(name="patch", row_shape=(GRID, GRID, DIM), axes=("rows", "cols", "dim"), dtype="float32"),
            Stream(name="frame", row_shape=(DIM,), axes=("dim",), dtype="float32"),
        )
        self.device = device
        self.compute_dtype = compute_dtype
        state = _weights()
        self._digest = state_digest(state)
        self._network = _Network()
        load_exactly(self._network, state, where="tiny")
        self._network.to(device=device, dtype=compute_dtype).eval().requires_grad_(requires_grad=False)

    @classmethod
    def build(cls, request: BackboneRequest) -> "TinyBackbone":
        refuse_clips(request, "tiny")
        if request.weights is not None:
            raise ConfigError(
                "tiny has its weights built in\ndrop --weights, or choose another --backbone for that file"
            )
        side = GRID * CELL * CELLS_IN_PATCH
        if request.image_size not in (None, side):
            raise ConfigError(f"tiny sees {side} pixels a side, got image size {request.image_size}\ndrop --image-size")
        preprocess = Preprocess(
            height=side,
            width=side,
            resize=request.resize or "squash",
            interpolation="bilinear",
            crop_borders=request.crop_borders,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
        )
        device = resolve_device(request.device)
        # float32 unless asked: the layers are too thin to gain from less, and demos should look alike everywhere.
        dtype = torch.float32 if request.compute_dtype == "auto" else resolve_dtype(request.compute_dtype, device)
        return cls(preprocess=preprocess, device=device, compute_dtype=dtype)

    @torch.inference_mode()
    def encode(self, frames: UInt8[Tensor, "batch time height width 3"]) -> dict[str, Float[Tensor, "batch time *row"]]:
        check_frames(frames, self.preprocess)
        pixels = self.preprocess.normalise(frames.to(self.device).flatten(0, 1), dtype=self.compute_dtype)
        patch = self._network(pixels).float().unflatten(0, frames.shape[:2])
        return {"patch": patch, "frame": patch.mean(dim=(2, 3))}

    def provenance(self) -> dict[str, Any]:
        return {"id": "tiny", "architecture": "tiny-1", "weights": self._digest, "layer": "last", "final_norm": True}

    def recorded(self) -> dict[str, Any]:
        return {"source": "built in"} | machine_facts(self)


class _Network(nn.Module):
    """Pixels (frames, 3, 224, 224) to tokens (frames, 14, 14, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Conv2d(3, NUM_FILTERS, CELL, stride=CELL)
        self.patches = nn.Conv2d(NUM_FILTERS, DIM, CELLS_IN_PATCH, stride=CELLS_IN_PATCH)
        self.position = nn.Parameter(torch.empty(GRID, GRID, DIM))
        self.layers = nn.ModuleList(_MixingLayer() for _ in range(2))
        self.norm = nn.LayerNorm(DIM)

    def forward(self, pixels: Float[Tensor, "frames 3 height width"]) -> Float[Tensor, "frames rows cols dim"]:
        cells = self.cells(pixels)
        # The first three filters are mean colours and keep their sign; of an edge only the strength matters.
        cells = torch.cat([cells[:, :3], cells[:, 3:].abs()], dim=1)
        tokens = self.patches(cells).permute(0, 2, 3, 1) + self.position
        for layer in self.layers:
            tokens = layer(tokens)
        normed: Tensor = self.norm(tokens)
        return normed


class _MixingLayer(nn.Module):
    """A little of the neighbours, then a channel MLP; both are added to what was there."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(DIM)
        self.widen = nn.Linear(DIM, 2 * DIM)
        self.narrow = nn.Linear(2 * DIM, DIM)

    def forward(self, tokens: Float[Tensor, "frames rows cols dim"]) -> Float[Tensor, "frames rows cols dim"]:
        around = F.avg_pool2d(tokens.permute(0, 3, 1, 2), 3, stride=1, padding=1, count_include_pad=False)
        tokens = tokens + 0.25 * around.permute(0, 2, 3, 1)
        update: Tensor = self.narrow(F.relu(self.widen(self.norm(tokens))))
        return tokens + update


def _weights() -> dict[str, Tensor]:
    generator = np.random.Generator(np.random.PCG64(SEED))

    def random(*shape: int, fan_in: int, gain: float = 1.0) -> np.ndarray:
        # Variance gain^2 / fan_in. `random` is 53 bits of the generator times 2^-53 and sqrt is correctly rounded.
        bound = gain * math.sqrt(3.0 / fan_in)
        return (2.0 * generator.random(shape) - 1.0) * bound

    colours = np.zeros((3, 3, CELL, CELL))
    for channel in range(3):
        colours[channel, channel] = 1.0 / CELL**2
    edges = random(NUM_FILTERS - 3, 3, CELL, CELL, fan_in=3 * CELL**2, gain=2.0)
    edges[:, :, :, CELL // 2 :] = -edges[:, :, :, CELL // 2 - 1 :: -1]  # odd in x: flat colour gives exactly nothing
    edges[::2] = edges[::2].transpose(0, 1, 3, 2).copy()  # and every other one odd in y
    state = {
        "cells.weight": np.concatenate([colours, edges]),
        "cells.bias": np.zeros(NUM_FILTERS),
        "patches.weight": random(DIM, NUM_FILTERS, CELLS_IN_PATCH, CELLS_IN_PATCH, fan_in=16 * 3),
        "patches.bias": np.zeros(DIM),
        "position": _positions(random(4, DIM, fan_in=4)),
        "norm.weight": np.ones(DIM),
        "norm.bias": np.zeros(DIM),
    }
    for layer in range(2):
        state |= {
            f"layers.{layer}.norm.weight": np.ones(DIM),
            f"layers.{layer}.norm.bias": np.zeros(DIM),
            f"layers.{layer}.widen.weight": random(2 * DIM, DIM, fan_in=DIM),
            f"layers.{layer}.widen.bias": np.zeros(2 * DIM),
            f"layers.{layer}.narrow.weight": random(DIM, 2 * DIM, fan_in=2 * DIM, gain=0.5),
            f"layers.{layer}.narrow.bias": np.zeros(DIM),
        }
    return {name: torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)) for name, array in state.items()}


def _positions(directions: np.ndarray) -> np.ndarray:
    """Row and column, once as a ramp and once as a tent, along four random directions."""
    ramp = (2.0 * np.arange(GRID) + 1.0) / GRID - 1.0
    tent = 1.0 - 2.0 * np.abs(ramp)
    rows = [np.broadcast_to(wave[:, None], (GRID, GRID)) for wave in (ramp, tent)]
    cols = [np.broadcast_to(wave[None, :], (GRID, GRID)) for wave in (ramp, tent)]
    total = np.zeros((GRID, GRID, directions.shape[1]))
    for wave, direction in zip([*rows, *cols], directions, strict=True):  # not a matmul: a fixed order of additions
        total += 0.5 * wave[:, :, None] * direction
    return total
