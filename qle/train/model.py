"""What is trained: head and text encoder as one module, so that several processes exchange all gradients at once.

    Batch (without words) -> encode its distinct queries -> head -> terms of the loss

The forward pass returns the terms as scalars. Their weights come from outside (weighting.py), because only the loop knows
the other batches and processes that share the step.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from qle.data.batch import Batch
from qle.heads.base import Head, HeadOutput
from qle.text.bank import QueryBank
from qle.text.base import TextEncoder


class TrainedModel(nn.Module):
    """`head` and `text` are submodules; queries go through the bank where the encoder is frozen, which keeps them."""

    def __init__(self, head: Head, text: TextEncoder, bank: QueryBank) -> None:
        super().__init__()
        self.head, self.text = head, text
        self.bank = bank

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        words = self.bank.encode(batch.queries) if self.text.is_frozen else self.text(batch.queries)
        output = self.head(batch.with_words(words))
        # Logits may be bfloat16 under autocast; sums over thousands of rows must not be.
        with torch.autocast(output_device(output).type, enabled=False):
            losses = self.head.loss(in_float32(output), batch)
        return dict(losses.terms)

    def trainable(self) -> dict[str, nn.Parameter]:
        """What the optimiser changes."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}


def in_float32(output: HeadOutput) -> HeadOutput:
    """The same numbers, wide enough for a loss."""
    fields = {name: getattr(output, name) for name in HeadOutput.__dataclass_fields__}
    return HeadOutput(**{name: None if value is None else value.float() for name, value in fields.items()})


def output_device(output: HeadOutput) -> torch.device:
    """Of the first tensor that is there."""
    for name in HeadOutput.__dataclass_fields__:
        value = getattr(output, name)
        if value is not None:
            device: torch.device = value.device
            return device
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
