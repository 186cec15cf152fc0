"""The loop: batches in, a trained model out; killed anywhere, it goes on from the last checkpoint to the same numbers.

    batches -> weights of their terms -> forward, backward -> clip -> AdamW -> EMA
            every so often: a line of history, a validation, a checkpoint

All processes run it in step. What they decide together (the best validation, the end) follows from numbers that all of them
have, so nothing needs to be agreed on.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from qle.train.config import TrainConfig
from qle.train.progress import OnStatus, TrainStatus, score_label
from qle.train.steps.checkpoints import Checkpoint, CheckpointFolder, Position
from qle.train.steps.ema import Ema
from qle.train.steps.history import History
from qle.train.steps.meter import Meter
from qle.train.steps.model import TrainedModel
from qle.train.steps.optimiser import (
    build_optimiser,
    load_optimiser_tensors,
    optimiser_tensors,
    parameter_groups,
    rate_factor,
    set_rate,
)
from qle.train.steps.randomness import random_state, set_random_state
from qle.train.steps.weighting import step_weights, weighted_total
from qle.weights import check_tensors

Part = TypeVar("Part")


class Batches(Protocol):
    """What the loop needs of the data: epochs that are reproducible, and as many batches in every process."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None: ...


@dataclass(frozen=True, kw_only=True)
class TrainerParts:
    """What a Trainer works with."""

    accelerator: Accelerator
    model: TrainedModel
    batches: Batches
    config: TrainConfig
    validate: Callable[[], float]
    """Scores the model as it is; more is better."""
    score_name: str
    """Name of that score in the history."""
    checkpoints: CheckpointFolder
    history: History
    on_status: OnStatus
    name: str = ""


class Trainer:
    """One training. After `run` the model has the weights of its best validation."""

    def __init__(self, parts: TrainerParts) -> None:
        self._parts = parts
        self.config, self.accelerator, self.model = parts.config, parts.accelerator, parts.model
        self.model.to(self.accelerator.device)
        self._groups = parameter_groups(self.model, self.config)
        self._optimiser = build_optimiser(self.model, self._groups, self.config.betas)
        self._ema = Ema(self.model, self.config.ema_decay)
        # Only the model: the optimiser needs no gradient scaler here, and a wrapped schedule would count processes.
        self._wrapped: nn.Module = self.accelerator.prepare(self.model)
        self._meter = Meter(self.accelerator.device)
        self.position = Position()
        self._best: dict[str, Tensor] = {}
        self.steps_per_epoch = -(-len(parts.batches) // self.config.accumulation)
        self.num_steps = self.config.steps or self.config.epochs * self.steps_per_epoch
        self._status = TrainStatus(
            step=0, num_steps=self.num_steps, epoch=0, num_epochs=0, run=parts.name,
            score_label=score_label(parts.score_name),
        )  # fmt: skip

    @property
    def is_over(self) -> bool:
        return self.position.is_over(self.num_steps, self.config.patience)

    def run(self) -> Position:
        """Until the last step, or until validation has not become better for too long."""
        self._restore()
        while not self.is_over:
            self._epoch()
        self._parts.history.end()
        _copy_into(model_tensors(self.model), self._best)
        return self.position

    def _epoch(self) -> None:
        """From where the position is, to the end of the epoch or of the training."""
        epoch, steps_done = divmod(self.position.step, self.steps_per_epoch)
        self._parts.batches.set_epoch(epoch, steps_done * self.config.accumulation)
        self.model.train()
        for batches in groups_of(self._parts.batches, self.config.accumulation):
            self._step([batch.to(self.accelerator.device) for batch in batches])
            self._after_step()
            if self.is_over:
                return

    def _step(self, batches: Sequence[Any]) -> None:
        """One update of the weights from all batches of all processes."""
        step = self.position.step + 1
        set_rate(self._optimiser, self._rate_factor(step))
        counts = [self.model.head.loss_counts(batch) for batch in batches]
        weights = step_weights(self.accelerator, counts)
        for number, (batch, weight) in enumerate(zip(batches, weights, strict=True)):
            is_last = number == len(batches) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(self._wrapped):
                total, parts = weighted_total(self._wrapped(batch), weight)
                self.accelerator.backward(self._touching_all(total))
            self._meter.add(parts)
        norm = nn.utils.clip_grad_norm_(self.model.trainable().values(), self.config.clip_norm or float("inf"))
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self._ema.update(step)
        self._meter.end_step(step, norm)
        self.position = replace(self.position, step=step)

    def _rate_factor(self, step: int) -> float:
        config = self.config
        per_drop = config.step_every * self.steps_per_epoch
        return rate_factor(step, self.num_steps, config.warmup, schedule=config.schedule, steps_per_drop=per_drop)

    def _touching_all(self, total: Tensor) -> Tensor:
        """DDP waits for the gradient of every parameter; one that a head or encoder does not use must still have one."""
        if self.accelerator.num_processes == 1:
            return total
        return total + 0 * torch.stack([value.sum() for value in self.model.trainable().values()]).sum()

    def _after_step(self) -> None:
        """What is due. A line of history precedes every checkpoint, so that none is averaged over a gap."""
        config, step = self.config, self.position.step
        is_last = step == self.num_steps
        does_validate = is_last or step % (config.eval_every or config.eval_epochs * self.steps_per_epoch) == 0
        does_save = is_last or step % config.checkpoint_every == 0
        if does_validate or does_save or step % config.log_every == 0:
            values = self._meter.read(self.accelerator, step)
            if does_validate:
                values[self._parts.score_name] = self._validate()
            self._write(values)
        self._show(self._status)
        if does_save or self.is_over:
            self._save()

    def _write(self, values: dict[str, float]) -> None:
        epoch = (self.position.step - 1) // self.steps_per_epoch
        rate = self._rate_factor(self.position.step) * self.config.lr
        self._parts.history.add(self.position.step, {"epoch": epoch, **values, "lr": rate})
        score = values.get(self._parts.score_name, self._status.score)
        self._status = replace(
            self._status, loss=values["loss"], score=score, best_score=self.position.best_score, epoch=epoch
        )

    def _show(self, status: TrainStatus) -> None:
        epoch = (self.position.step - 1) // self.steps_per_epoch + 1
        num_epochs = -(-self.num_steps // self.steps_per_epoch)
        self._parts.on_status(
            replace(status, step=self.position.step, epoch=epoch, num_epochs=num_epochs, is_over=self.is_over)
        )

    def _validate(self) -> float:
        """The score of the running mean of the weights; keeps them if they are the best so far."""
        was_training = self.model.training
        with self._ema.in_place():
            score = self._parts.validate()
            best = self.position.best_score
            if best is None or score > best:
                self._best = {name: value.detach().clone() for name, value in model_tensors(self.model).items()}
                self.position = replace(self.position, best_score=score, best_step=self.position.step, num_worse=0)
            else:
                self.position = replace(self.position, num_worse=self.position.num_worse + 1)
        self.model.train(was_training)
        return score

    def _save(self) -> None:
        mine = random_state(self.accelerator.device)
        states = gather_object([mine]) if self.accelerator.num_processes > 1 else [mine]
        if self.accelerator.is_main_process:
            self.position = replace(self.position, history_bytes=self._parts.history.num_bytes)
            tensors = {
                "weights": model_tensors(self.model),
                "optimiser": optimiser_tensors(self._optimiser, self._groups),
                "ema": self._ema.state(),
                "best": self._best,
                **{f"random-{rank}": state for rank, state in enumerate(states)},
            }
            self._parts.checkpoints.write(Checkpoint(position=self.position, tensors=tensors))

    def _restore(self) -> None:
        """From the newest checkpoint; every process reads it, so the run folder must be shared."""
        checkpoint = self._parts.checkpoints.newest()
        if checkpoint is not None:
            tensors = checkpoint.tensors
            own = model_tensors(self.model)
            shapes = {name: value.shape for name, value in own.items()}
            check_tensors(shapes, tensors["weights"], where=str(self._parts.checkpoints.path))
            _copy_into(own, tensors["weights"])
            load_optimiser_tensors(self._optimiser, self._groups, dict(tensors.get("optimiser", {})))
            self._ema.load_state(tensors.get("ema", {}))
            self._best = {name: value.to(self.accelerator.device) for name, value in tensors.get("best", {}).items()}
            set_random_state(tensors[f"random-{self.accelerator.process_index}"], self.accelerator.device)
            self.position = checkpoint.position
            self._status = replace(self._status, best_score=self.position.best_score)
            note = f"going on after step {self.position.step} of {self.num_steps}"
            self._parts.on_status(replace(self._status, step=self.position.step, note=note))
        self._parts.history.begin(self.position.step, self.position.history_bytes)


def model_tensors(model: TrainedModel) -> dict[str, Tensor]:
    """What a checkpoint keeps: all of the head with its buffers, and the trained part of the text encoder. Not copies."""
    head = {f"head.{name}": value for name, value in model.head.state_dict().items()}
    return head | {f"text.{name}": value for name, value in model.text.train_state().items()}


def groups_of(parts: Iterable[Part], size: int) -> Iterator[list[Part]]:
    """Lists of `size`; the last one may be shorter."""
    rest = iter(parts)
    while group := list(islice(rest, size)):
        yield group


@torch.no_grad()
def _copy_into(own: dict[str, Tensor], values: dict[str, Tensor] | object) -> None:
    assert isinstance(values, dict)
    for name, value in values.items():
        own[name].copy_(value)
