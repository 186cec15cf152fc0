"""The running mean of the weights: steadier than the weights of any one step, and what is validated and saved."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """mean = d * mean + (1 - d) * weight after each step, d = min(decay, (1 + step) / (10 + step)): young means are short,
    so that the first weights, which are noise, are forgotten. With decay 0 the mean is the weights, and costs nothing."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._weights = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._mean = {name: value.detach().clone() for name, value in self._weights.items()} if decay else {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        if self.decay:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(self._mean.values()), list(self._weights.values()), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the mean as its weights within."""
        with torch.no_grad():
            own = {name: self._weights[name].detach().clone() for name in self._mean}
            self._copy(self._mean)
            try:
                yield
            finally:
                self._copy(own)

    def state(self) -> dict[str, Tensor]:
        """Empty with decay 0."""
        return self._mean

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, mean in self._mean.items():
                mean.copy_(state[name])

    @torch.no_grad()
    def _copy(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self._weights[name].copy_(value)
