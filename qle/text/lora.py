"""LoRA on a frozen tower through peft.

    tower (frozen) --add_lora--> the same tower with adapters beside the named layers; only these require gradients

Layers are named as CLIP names them; other families use other words for the same thing (`ALIASES`). peft puts the adapters
inside the tower, so its own weights stay where they are, as `...q_proj.base_layer.weight`, and are never written.
"""

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from qle.errors import ConfigError
from qle.text.request import LoraSettings

ALIASES = {
    "q_proj": ("query", "q_lin", "q"),
    "k_proj": ("key", "k_lin", "k"),
    "v_proj": ("value", "v_lin", "v"),
    "out_proj": ("out_lin", "o"),
}
"""CLIP's name -> what BERT, DistilBERT and T5 call it."""


def add_lora(tower: nn.Module, settings: LoraSettings, *, seed: int, where: str) -> None:
    """Freeze the tower and put adapters into it; the same seed gives the same first values and leaves the global one alone."""
    layers = _layers(tower, settings.targets, where)
    tower.requires_grad_(requires_grad=False)
    config = LoraConfig(
        r=settings.r, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=layers, bias="none"
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, tower)


def set_adapter_dropout(tower: nn.Module, *, is_training: bool) -> None:
    """Dropout of the adapters alone: the tower's own stays off, since nothing of it is trained."""
    for name, module in tower.named_modules():
        if name.rpartition(".")[2] == "lora_dropout":
            module.train(is_training)


def _layers(tower: nn.Module, targets: tuple[str, ...], where: str) -> list[str]:
    linear = {name: name.rpartition(".")[2] for name, module in tower.named_modules() if isinstance(module, nn.Linear)}
    endings = set(linear.values())
    chosen: set[str] = set()
    for target in targets:
        known = [name for name in (target, *ALIASES.get(target, ())) if name in endings]
        if not known:
            raise ConfigError(
                f"{where}: LoRA target {target!r} is no linear layer of this model\n"
                f"its layers: {', '.join(sorted(endings)) or 'none'}"
            )
        chosen.add(known[0])
    return sorted(name for name, ending in linear.items() if ending in chosen)
