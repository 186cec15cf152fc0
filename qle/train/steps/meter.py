"""Numbers of the steps since the last line of the history, kept on the device: reading one would wait for the GPU."""

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor

from qle.errors import TrainingError


class Meter:
    """Sums of loss terms and gradient norms, and the first step that was not finite."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, Tensor] = {}
        self._norm = torch.zeros((), device=device)
        self._bad_step = torch.zeros((), dtype=torch.int64, device=device)
        self._num_steps = 0

    def add(self, parts: Mapping[str, Tensor]) -> None:
        """Weighted terms of one batch, of which a step may have several."""
        for name, part in parts.items():
            self._sums[name] = self._sums[name] + part if name in self._sums else part

    def end_step(self, step: int, norm: Tensor) -> None:
        """`norm`: of the whole gradient, before it is clipped. A loss that is not finite has no finite gradient."""
        self._num_steps += 1
        self._norm = self._norm + norm
        is_first = ~torch.isfinite(norm) & (self._bad_step == 0)
        self._bad_step = torch.where(is_first, step, self._bad_step)

    def read(self, accelerator: Accelerator, step: int) -> dict[str, float]:
        """Means over the steps since the last call, of all processes together; TrainingError where one was not finite."""
        names = sorted(self._sums)
        values = torch.stack([self._sums[name] for name in names] + [self._norm]) / max(1, self._num_steps)
        if accelerator.num_processes > 1:  # each process has its part of a step, weighted as if it were all of it
            values = accelerator.reduce(values, reduction="mean")
        *terms, norm, bad_step = [*values.tolist(), int(self._bad_step)]
        loss = sum(terms)
        if bad_step or not abs(loss) < float("inf"):
            raise TrainingError(
                f"step {bad_step or step}: the loss is not a finite number any more; the last checkpoint is kept\n"
                "lower train.lr or train.text_lr, set train.precision=float32, or look for broken tokens: qle cache verify"
            )
        self._sums, self._num_steps = {}, 0
        self._norm = torch.zeros((), device=self._device)
        named = {f"loss/{name}": term for name, term in zip(names, terms, strict=True)}
        return {"loss": loss, **named, "gradient_norm": norm}
