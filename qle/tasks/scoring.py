"""Modules that score and are not trained: how predict.py and predict_moments.py run heads and text encoders."""

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
    # Setting a mode walks all parts of a module, which for a text encoder takes longer than scoring a short video.
    changed = [(module, module.training) for module in modules if any(part.training for part in module.modules())]
    try:
        for module, _ in changed:
            module.eval()
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            yield
    finally:
        for module, was_training in changed:
            module.train(was_training)
