"""AdamW with decay where it belongs (or where it was published), and the learning rate as a function of the step.

The schedule has no state: what step it is says what the rate is, so there is nothing to save, to restore, or to advance
once too often when several processes train.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qle.train.config import Schedule, TrainConfig

DECAYED_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)
"""Their weight matrices mix features; decay keeps them small. A bias, a norm's gain, an embedding, a position, or the decay
rate of a state space layer has a meaning of its own that 0 is not the neutral value of; and LoRA matrices are a difference
to weights already, and small by their rank."""
DROP = 0.1
"""What the schedule step multiplies the rate with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Parameters that share a learning rate and a decay."""

    names: tuple[str, ...]
    lr: float
    weight_decay: float


def decayed_names(model: nn.Module) -> set[str]:
    """Names of the trainable parameters that weight decay acts on."""
    decayed = set()
    for path, module in model.named_modules():
        if not isinstance(module, DECAYED_LAYERS):
            continue
        for name, parameter in module.named_parameters(prefix=path, recurse=False):
            is_matrix = parameter.ndim >= 2 and name.endswith("weight")
            if is_matrix and parameter.requires_grad and "lora_" not in name:
                decayed.add(name)
    return decayed


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[ParameterGroup]:
    """Every trainable parameter of a TrainedModel once: head and text, each with and without decay."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    decayed = trained if config.decay == "all" else decayed_names(model)
    groups: dict[tuple[float, float], list[str]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            lr = config.text_lr if name.startswith("text.") else config.lr
            groups.setdefault((lr, config.weight_decay if name in decayed else 0.0), []).append(name)
    return [ParameterGroup(names=tuple(names), lr=lr, weight_decay=decay) for (lr, decay), names in groups.items()]


def build_optimiser(
    model: nn.Module, groups: Sequence[ParameterGroup], betas: tuple[float, float] = (0.9, 0.98)
) -> torch.optim.AdamW:
    """Groups keep their highest rate under "peak_lr"."""
    parameters = dict(model.named_parameters())
    return torch.optim.AdamW(
        [
            {
                "params": [parameters[name] for name in group.names],
                "lr": group.lr,
                "peak_lr": group.lr,
                "weight_decay": group.weight_decay,
            }
            for group in groups
        ],
        fused=True,
        betas=betas,
    )


def rate_factor(
    step: int, num_steps: int, warmup: float, *, schedule: Schedule = "cosine", steps_per_drop: int = 0
) -> float:
    """Share of the highest rate at a step (counted from 1): up on a line, then as the schedule says. A cosine is 0 after the
    last step. `steps_per_drop`: of the schedule step."""
    num_warmup = round(warmup * num_steps)
    if step <= num_warmup:
        return step / num_warmup
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        return float(DROP ** ((step - 1) // steps_per_drop))
    progress = (step - num_warmup - 1) / max(1, num_steps - num_warmup)
    return 0.5 * (1 + math.cos(math.pi * progress))


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """The rate of the coming step in every group."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak_lr"] * factor


def optimiser_tensors(optimiser: torch.optim.Optimizer, groups: Sequence[ParameterGroup]) -> dict[str, Tensor]:
    """The state as tensors by parameter name and kind ("head.out.weight|exp_avg"): no pickle is needed to keep it."""
    tensors = {}
    for group, stored in zip(groups, optimiser.param_groups, strict=True):
        for name, parameter in zip(group.names, stored["params"], strict=True):
            for kind, value in optimiser.state.get(parameter, {}).items():
                tensors[f"{name}|{kind}"] = value
    return tensors


def load_optimiser_tensors(
    optimiser: torch.optim.Optimizer, groups: Sequence[ParameterGroup], tensors: dict[str, Tensor]
) -> None:
    """The inverse, into an optimiser that was built with the same groups."""
    by_name: dict[str, dict[str, Tensor]] = {}
    for label, value in tensors.items():
        name, _, kind = label.partition("|")
        by_name.setdefault(name, {})[kind] = value
    for group, stored in zip(groups, optimiser.param_groups, strict=True):
        for name, parameter in zip(group.names, stored["params"], strict=True):
            if name in by_name:
                optimiser.state[parameter] = {
                    # The count of steps stays on the CPU, as AdamW makes it.
                    kind: value.clone() if kind == "step" else value.to(parameter.device, copy=True)
                    for kind, value in by_name[name].items()
                }
