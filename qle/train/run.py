"""`train_heads`: one call of the command from the request to finished run folders.

    request -> settings -> for each seed: Task -> model + batches -> Trainer -> finish -> RunSummary

A finished run is left alone, an unfinished one goes on, and both only if what is asked now is what was asked then.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from qle.heads import task_of
from qle.outputs import write_json
from qle.runs.record import CHECKPOINTS
from qle.runtime import are_threads_given, is_lonely, is_main_process, seed_everything
from qle.train.finish import finish
from qle.train.folder import announce, begin, check_seeds, owned, read_metrics
from qle.train.progress import OnNote, OnStatus
from qle.train.request import Settings, TrainRequest, resolve
from qle.train.seeds import seed_slots, train_seeds
from qle.train.setup import build_accelerator, text_identity
from qle.train.steps.checkpoints import CheckpointFolder, threads_of
from qle.train.steps.history import History
from qle.train.steps.loop import Trainer, TrainerParts
from qle.train.steps.model import TrainedModel, count_parameters
from qle.train.summary import SUMMARY_FILE, RunSummary, TrainPlan, TrainSummary, metric_spread
from qle.train.training import OpenBatches, Training, Validation

LONELY = (
    "the launcher has started one process only (accelerate launch --cpu needs mpirun for more): "
    "to train on CPUs with several, pass --multi_gpu instead of --cpu there and --device cpu here, or use torchrun"
)


def train_heads(request: TrainRequest, on_status: OnStatus, on_note: OnNote) -> TrainSummary:
    """Train, or go on, or find that all is done."""
    settings = resolve(request)
    if request.num_seeds is not None:
        check_seeds(request.out)
    training = open_training(request, settings)
    notes: dict[str, None] = {}

    def say(note: str) -> None:
        """Once, whichever seed says it."""
        if note not in notes:
            notes[note] = None
            on_note(note)

    for note in (*training.notes, *([LONELY] if is_lonely() else [])):
        say(note)
    if request.num_seeds is None:
        run = _run(request, settings, training, request.out, on_status, say)
        return TrainSummary(runs=(run,), spread={}, notes=tuple(notes))
    slots = seed_slots(request)
    if len(slots) > 1:
        runs = train_seeds(request, slots, on_status, say)
    else:
        runs = [run_seed(request, settings, number, on_status, say) for number in range(request.num_seeds)]
    spread = metric_spread([run.metrics for run in runs])
    if is_main_process():
        write_json(request.out / SUMMARY_FILE, {"runs": [run.folder for run in runs], "spread": spread})
    return TrainSummary(runs=tuple(runs), spread=spread, notes=tuple(notes))


def run_seed(
    request: TrainRequest, settings: Settings, number: int, on_status: OnStatus, on_note: OnNote
) -> RunSummary:
    """One of several seeds, in its own folder."""
    seeded = settings.with_seed(settings.train.seed + number)
    return _run(request, seeded, open_training(request, seeded), request.seed_folder(number), on_status, on_note)


def open_training(request: TrainRequest, settings: Settings) -> Training:
    """The training of the task that the head is for."""
    return task_of(settings.head_name).training_class.open(request, settings)


def plan(request: TrainRequest) -> TrainPlan:
    """--dry-run: everything is opened and checked, nothing is written."""
    settings = resolve(request)
    training = open_training(request, settings)
    accelerator = build_accelerator(request, settings.train.precision, request.out)
    parts = _Parts.of(accelerator, settings, training)
    with closing(parts.batches) as batches:
        steps_per_epoch = -(-len(batches) // settings.train.accumulation)
        return TrainPlan(
            space=training.where,
            train=_counted(training.train),
            val=_counted(training.val),
            steps_per_epoch=steps_per_epoch,
            steps=settings.train.steps or settings.train.epochs * steps_per_epoch,
            batches_per_epoch=len(batches),
            placement=parts.placement,
            parameters=count_parameters(parts.model),
            device=str(accelerator.device),
            precision="bfloat16" if accelerator.mixed_precision == "bf16" else "float32",
            num_processes=accelerator.num_processes,
            num_jobs=len(seed_slots(request)),
            settings=settings.to_json(),
            notes=tuple(training.notes),
        )


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Everything that one run works with, checked."""

    accelerator: Accelerator
    settings: Settings
    training: Training
    model: TrainedModel
    batches: OpenBatches
    validation: Validation

    @classmethod
    def of(cls, accelerator: Accelerator, settings: Settings, training: Training) -> "_Parts":
        model = training.model(accelerator.device)
        validation = training.validation(accelerator)
        batches = training.batches(model, accelerator)
        if accelerator.process_index:  # the models are equal; dropout should not be
            seed_everything(settings.train.seed + accelerator.process_index)
        return cls(
            accelerator=accelerator,
            settings=settings,
            training=training,
            model=model,
            batches=batches,
            validation=validation,
        )

    @property
    def placement(self) -> str:
        """Where the tokens lie, and why."""
        return f"{self.batches.placement.name} ({self.batches.placement.reason})"


def _run(
    request: TrainRequest, settings: Settings, training: Training, folder: Path, on_status: OnStatus, on_note: OnNote
) -> RunSummary:
    started_s = time.monotonic()
    accelerator = build_accelerator(request, settings.train.precision, folder)
    text = text_identity(settings.text, [annotation.query for annotation in (*training.train, *training.val)])
    asked = settings.to_json() | dict(training.identity) | text | {"num_processes": accelerator.num_processes}
    with owned(folder, accelerator):
        state = begin(folder, asked, accelerator)
        if state == "finished":
            if accelerator.is_main_process:  # a kill between the record and this left them
                CheckpointFolder(folder / CHECKPOINTS).remove()
            metrics = read_metrics(folder)
            return RunSummary(folder=str(folder), state="finished before", seed=settings.train.seed, metrics=metrics)
        if state == "unfinished":
            _keep_threads(folder, on_note)
        parts = _Parts.of(accelerator, settings, training)
        for note in training.notes:  # building the head may have told more
            on_note(note)
        announce(folder, asked, accelerator)
        with closing(parts.batches):
            metrics = _train(folder, parts, asked, on_status)
            return RunSummary(
                folder=str(folder), state="trained", seed=settings.train.seed, metrics=metrics,
                parameters=count_parameters(parts.model), placement=parts.placement, wait_s=parts.batches.wait_s,
                num_nonfinite_rows=parts.batches.num_nonfinite_rows, seconds=time.monotonic() - started_s,
            )  # fmt: skip


def _keep_threads(folder: Path, on_note: OnNote) -> None:
    """As many as the training had that is gone on with, unless the user says otherwise: else its numbers would be others."""
    threads = threads_of(folder / CHECKPOINTS)
    if threads is not None and threads != torch.get_num_threads() and not are_threads_given():
        torch.set_num_threads(threads)
        on_note(f"threads: {threads}, as this training had before")


def _train(folder: Path, parts: _Parts, asked: Mapping[str, Any], on_status: OnStatus) -> dict[str, Any]:
    """The metrics of the finished run, on every process."""
    accelerator, model, validation = parts.accelerator, parts.model, parts.validation
    checkpoints = CheckpointFolder(folder / CHECKPOINTS)
    trainer = Trainer(
        TrainerParts(
            accelerator=accelerator,
            model=model,
            batches=parts.batches,
            config=parts.settings.train,
            validate=lambda: validation.value(validation.score(model)),
            score_name=parts.training.score_name,
            checkpoints=checkpoints,
            history=History(folder, accelerator),
            on_status=on_status,
            name=folder.name,
        )
    )
    position = trainer.run()
    scored = validation.score(model)
    metrics: list[Any] = [None]
    if accelerator.is_main_process:
        metrics[0] = finish(
            folder, accelerator, model,
            settings=parts.settings, training=parts.training, position=position, scored=scored, asked=asked,
        )  # fmt: skip
        checkpoints.remove()
    broadcast_object_list(metrics)
    values: dict[str, Any] = metrics[0]
    return values


def _counted(annotations: Sequence[Any]) -> str:
    videos = len({annotation.video for annotation in annotations})
    return f"{len(annotations)} annotations of {videos} videos"
