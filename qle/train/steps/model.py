"""What is trained: head and text encoder as one module, so that several processes exchange all gradients at once.

    batch -> (where its words did not come with it: encode its distinct queries) -> head -> terms of the loss

The forward pass returns the terms as scalars. Their weights come from outside (weighting.py), because only the loop knows
the other batches and processes that share the step.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from qle.heads.base import Head
from qle.text.bank import QueryBank
from qle.text.base import TextEncoder

Output = TypeVar("Output")


class TrainedModel(nn.Module):
    """`head` and `text` are submodules; queries go through the bank where the encoder is frozen, which keeps them."""

    def __init__(self, head: Head, text: TextEncoder, bank: QueryBank) -> None:
        super().__init__()
        self.head, self.text = head, text
        self.bank = bank

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """`batch`: of the kind that the head reads."""
        if batch.words is None:
            words = self.bank.encode(batch.queries) if self.text.is_frozen else self.text(batch.queries)
            batch = batch.with_words(words)
        output = self.head(batch)
        # Logits may be bfloat16 under autocast; sums over thousands of rows must not be.
        with torch.autocast(output_device(output).type, enabled=False):
            losses = self.head.loss(in_float32(output), batch)
        return dict(losses.terms)

    def trainable(self) -> dict[str, nn.Parameter]:
        """What the optimiser changes."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}


def in_float32(output: Output) -> Output:
    """The same numbers of any dataclass of tensors, wide enough for a loss; what counts or masks stays what it is."""
    values = {field.name: getattr(output, field.name) for field in fields(output)}  # type: ignore[arg-type]
    return type(output)(**{name: _wide(value) for name, value in values.items()})


def output_device(output: object) -> torch.device:
    """Device of the first tensor that is there."""
    for field in fields(output):  # type: ignore[arg-type]
        for tensor in _tensors(getattr(output, field.name)):
            return tensor.device
    raise ValueError("a head gave no output")


def count_parameters(model: TrainedModel) -> Mapping[str, tuple[int, int]]:
    """(trainable, frozen) numbers of the head and of the text encoder."""
    return {
        part: (
            sum(value.numel() for value in module.parameters() if value.requires_grad),
            sum(value.numel() for value in module.parameters() if not value.requires_grad),
        )
        for part, module in (("head", model.head), ("text", model.text))
    }


def _wide(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _wide(part) for name, part in value.items()}
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
