"""What the makers of every system share: weights in which no fault can hide, and the file of a case."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn


def randomised(head: nn.Module) -> Any:
    """Weights without any zeros in which a fault could hide."""
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return head.eval()


def write_case(folder: Path, draw: random.Random, tensors: Mapping[str, Tensor]) -> None:
    """Under a name that says nothing."""
    content = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    save_file(content, folder / f"case-{draw.randrange(10**6)}.safetensors")
