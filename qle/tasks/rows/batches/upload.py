"""Batches to the device, beside its work: copies run on a stream of their own and the training stream waits for them.

A thread that copies on the default stream would queue its copies behind the training step, and the device would idle during
them. On a CPU nothing is copied. (The tensors are used on another stream than the one that they were allocated on, so the
allocator must be told, or it gives their memory away too early.)
"""

from dataclasses import fields

import torch
from torch import Tensor

from qle.heads.rows import RowBatch


class Uploader:
    """`begin` in the thread that makes batches, `finish` in the one that uses them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def enter(self) -> "torch.cuda.StreamContext | torch.autograd.grad_mode.no_grad":
        """What the thread works under: everything that it launches goes to the stream of copies."""
        if self._stream is None:
            return torch.no_grad()
        torch.cuda.set_device(self._device)  # of this thread
        return torch.cuda.stream(self._stream)

    def begin(self, batch: RowBatch) -> tuple[RowBatch, "torch.cuda.Event | None"]:
        """Start to copy; the event says when it is done."""
        if self._device.type == "cpu":
            return batch, None
        moved = batch.to(self._device)
        return moved, None if self._stream is None else self._stream.record_event()

    def finish(self, batch: RowBatch, event: "torch.cuda.Event | None") -> RowBatch:
        """Let the stream that is current here wait for the copy."""
        if event is None:
            return batch
        current = torch.cuda.current_stream(self._device)
        current.wait_event(event)
        for field in fields(batch):
            value = getattr(batch, field.name)
            for tensor in value.values() if field.name == "streams" else (value,):
                if isinstance(tensor, Tensor):
                    tensor.record_stream(current)
        return batch
