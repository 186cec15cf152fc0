"""The loss of a step that is spread over several batches and processes equals the loss of one big batch.

A term of the loss is a mean over what the masks allow, and parts of a step hold different amounts of it (videos end, rows
are unlabelled). The mean of the parts' means would count an entry of a poor part for more. So each part gets the weight

    entries here * processes / entries in the whole step

where `processes` undoes that DDP averages gradients over them. Counted from masks before the first forward pass: one small
all-reduce a step, nothing is copied to the host.
"""

from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

DEFAULT = "*"
"""Terms that the head does not name in `loss_counts`."""


def step_weights(accelerator: Accelerator, counts: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Weights of the terms of each batch of this process."""
    names = list(counts[0])
    table = torch.stack([torch.stack([count[name] for name in names]) for count in counts])
    total = table.sum(0)
    if accelerator.num_processes > 1:
        total = accelerator.reduce(total, reduction="sum")
    weights = table * accelerator.num_processes / total.clamp(min=1)
    return [dict(zip(names, row.unbind(), strict=True)) for row in weights]


def weighted_total(terms: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """What to call backward on, and its parts for the log (detached)."""
    parts = {name: term * weights.get(name, weights[DEFAULT]) for name, term in terms.items()}
    total = torch.stack(list(parts.values())).sum()
    return total, {name: part.detach() for name, part in parts.items()}
