"""What differs from task to task when heads are trained: what they are fed with, how they are validated, what is kept.

    TrainRequest -> Training.open -> model, batches, validation -> Trainer -> Training.finish -> a run folder

The class of a task stands in its folder (`Task.training`, qle/task.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator

from qle.data.annotations import Annotation
from qle.data.loading.plan import Placement
from qle.text.known import KnownTexts
from qle.train.request import Settings, TrainRequest
from qle.train.steps.checkpoints import Position
from qle.train.steps.model import TrainedModel


class OpenBatches(Protocol):
    """Batches of a training, open until they are closed."""

    @property
    def placement(self) -> Placement: ...

    @property
    def wait_s(self) -> float: ...

    @property
    def num_nonfinite_rows(self) -> int: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None: ...

    def close(self) -> None: ...


class Validation(ABC):
    """Measures a model on the validation videos, in all processes together."""

    @abstractmethod
    def score(self, model: TrainedModel) -> Any:
        """What the head says about every annotation, the same on every process; handed on to `value` and `Training.finish`."""

    @abstractmethod
    def value(self, scored: Any) -> float:
        """The number that chooses the best step; more is better."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a finished training wants to keep beside the weights: fields of the RunRecord that the task knows, and metrics."""

    record: Mapping[str, Any]
    """Of RunRecord: space, more_spaces, recipe, localization or ranking, priors."""
    metrics: Mapping[str, Any]
    """JSON, for metrics.json under "validation"."""
    known: KnownTexts | None = None
    """Where the knowledge of the run ends, if that is known."""


class Training(ABC):
    """Everything that is read and checked before the first step."""

    score_name: str
    """Name of `Validation.value` in history and metrics: "val_" and what it is, e.g. "val_auroc"."""

    train: Sequence[Annotation]
    val: Sequence[Annotation]
    where: str
    """The space or spaces, for people."""
    identity: Mapping[str, Any]
    """Of files and spaces by content, for the settings of the run."""
    notes: Sequence[str]
    """What the user should know and need not act on."""

    @classmethod
    @abstractmethod
    def open(cls, request: TrainRequest, settings: Settings) -> "Training":
        """Everything readable, found and labelled, or an error that says what is not."""

    @abstractmethod
    def model(self, device: torch.device) -> TrainedModel:
        """Fresh head and text encoder."""

    @abstractmethod
    def batches(self, model: TrainedModel, accelerator: Accelerator) -> OpenBatches: ...

    @abstractmethod
    def validation(self, accelerator: Accelerator) -> Validation: ...

    @abstractmethod
    def finish(self, model: TrainedModel, scored: Any, position: Position, folder: Path) -> Kept:
        """Constants fitted and metrics measured on `scored`, under the weights that are kept. On the main process."""
