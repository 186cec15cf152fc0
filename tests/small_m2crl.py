"""A small M2CRL encoder with random weights, in the file that it really comes in."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from qle.backbones.m2crl_files import M2crlConfig, expected_shapes

M2CRL = M2crlConfig(width=64, depth=2, num_heads=1, mlp_width=96, patch_size=16, grid=3, num_frames=4)


def m2crl_state(config: M2crlConfig = M2CRL, seed: int = 0) -> dict[str, Tensor]:
    """The canonical tensors with lively numbers; the temporal path is not the zero of a fresh model."""
    generator = torch.Generator().manual_seed(seed)
    shapes = expected_shapes(config).items()
    state = {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes}
    return {
        name: tensor + 1 if "norm" in name and name.endswith("weight") else tensor for name, tensor in state.items()
    }


def m2crl_file(folder: Path) -> Path:
    path = folder / "m2crl.safetensors"
    save_file({f"backbone.{name}": tensor for name, tensor in m2crl_state().items()}, path)
    return path
