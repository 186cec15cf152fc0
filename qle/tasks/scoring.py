"""How every task runs heads and text encoders that score and are not being trained."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

Precision = Literal["float32", "bfloat16"]

MEMORY_BYTES = 512 << 20
"""What the numbers of one pass may take, give or take."""


@contextmanager
def scoring(modules: Sequence[nn.Module], device: torch.device, precision: Precision) -> Iterator[None]:
    """No gradients, no dropout; every module is left in the mode that it was in. Not inference mode: what a text encoder keeps
    from here may be trained on later."""
    were_training = [module.training for module in modules]
    try:
        for module in modules:
            module.eval()
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            yield
    finally:
        for module, was_training in zip(modules, were_training, strict=True):
            module.train(was_training)
