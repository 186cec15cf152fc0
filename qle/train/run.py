"""`train_heads`: one call of the command from the request to finished run folders.

    request -> settings, material -> for each seed: model + batches -> Trainer -> finish -> RunSummary

A finished run is left alone, an unfinished one goes on, and both only if what is asked now is what was asked then.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout

from qle.data.cached import TrainingBatches, training_batches
from qle.errors import CacheMismatchError, ConfigError, TrainingError
from qle.runs import (
    CHECKPOINTS,
    METRICS_FILE,
    SETTINGS_FILE,
    RunState,
    different,
    listed,
    read_json,
    run_state,
    write_json,
)
from qle.runtime import is_main_process, seed_everything
from qle.train.checkpoints import CheckpointFolder
from qle.train.finish import finish
from qle.train.history import History
from qle.train.loop import Trainer, Training
from qle.train.model import TrainedModel, count_parameters
from qle.train.progress import OnStatus
from qle.train.request import Settings, TrainRequest, resolve
from qle.train.setup import Material, build_accelerator, build_model, open_material
from qle.train.validate import Validator, frame_auroc

SUMMARY_FILE = "summary.json"
LOCK_FILE = ".lock"
NO_NUMBERS = {"data.placement", "data.num_workers", "data.prefetch_batches"}
"""Settings that change how fast it goes and nothing else: a run may go on with others."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run folder."""

    folder: str
    state: Literal["trained", "finished before"]
    seed: int
    metrics: Mapping[str, Any]
    parameters: Mapping[str, tuple[int, int]]
    """(trainable, frozen) of head and text encoder; empty for a run that was finished before."""
    placement: str
    """Where the tokens lay while training."""
    wait_s: float
    """That the loop waited for data."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """What the command has done."""

    runs: tuple[RunSummary, ...]
    spread: Mapping[str, tuple[float, float]]
    """Mean and standard deviation of every metric over the seeds; empty for one run."""
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """What a training would do."""

    space: str
    train: str
    val: str
    steps_per_epoch: int
    steps: int
    batches_per_epoch: int
    placement: str
    parameters: Mapping[str, tuple[int, int]]
    device: str
    precision: str
    num_processes: int
    settings: Mapping[str, Any]
    notes: tuple[str, ...]


def train_heads(request: TrainRequest, on_status: OnStatus, on_note: Callable[[str], None]) -> TrainSummary:
    """Train, or go on, or find that all is done."""
    settings = resolve(request)
    material = open_material(request)
    for note in material.notes:
        on_note(note)
    if request.num_seeds is None:
        return TrainSummary(
            runs=(_run(request, settings, material, request.out, on_status),), spread={}, notes=material.notes
        )
    runs = []
    for number in range(request.num_seeds):
        seeded = settings.with_seed(settings.train.seed + number)
        runs.append(_run(request, seeded, material, request.out / f"seed-{number}", on_status))
    spread = metric_spread([run.metrics for run in runs])
    summary = TrainSummary(runs=tuple(runs), spread=spread, notes=material.notes)
    if is_main_process():
        write_json(request.out / SUMMARY_FILE, {"runs": [run.folder for run in runs], "spread": spread})
    return summary


def plan(request: TrainRequest) -> TrainPlan:
    """--dry-run: everything is opened and checked, nothing is written."""
    settings, material = resolve(request), open_material(request)
    accelerator = build_accelerator(request, settings.train.precision, request.out)
    model, batches = _parts(settings, material, accelerator)
    try:
        steps_per_epoch = -(-len(batches) // settings.train.accumulation)
        return TrainPlan(
            space=material.space.path.name,
            train=_counted(material.train),
            val=_counted(material.val),
            steps_per_epoch=steps_per_epoch,
            steps=settings.train.steps or settings.train.epochs * steps_per_epoch,
            batches_per_epoch=len(batches),
            placement=batches.placement,
            parameters=count_parameters(model),
            device=str(accelerator.device),
            precision="bfloat16" if accelerator.mixed_precision == "bf16" else "float32",
            num_processes=accelerator.num_processes,
            settings=settings.to_json(),
            notes=material.notes,
        )
    finally:
        batches.close()


def _run(
    request: TrainRequest, settings: Settings, material: Material, folder: Path, on_status: OnStatus
) -> RunSummary:
    started_s = time.monotonic()
    accelerator = build_accelerator(request, settings.train.precision, folder)
    asked = settings.to_json() | material.identity | {"num_processes": accelerator.num_processes}
    with _owned(folder, accelerator):
        if _begin(folder, asked, accelerator) == "finished":
            metrics = read_json(folder / METRICS_FILE)
            return RunSummary(
                folder=str(folder), state="finished before", seed=settings.train.seed, metrics=metrics,
                parameters={}, placement="", wait_s=0.0, seconds=0.0,
            )  # fmt: skip
        model, batches = _parts(settings, material, accelerator)
        try:
            metrics = _train(folder, accelerator, model, batches, settings, material, asked, on_status)
            return RunSummary(
                folder=str(folder), state="trained", seed=settings.train.seed, metrics=metrics,
                parameters=count_parameters(model), placement=batches.placement, wait_s=batches.wait_s,
                seconds=time.monotonic() - started_s,
            )  # fmt: skip
        finally:
            batches.close()


def _train(
    folder: Path,
    accelerator: Accelerator,
    model: TrainedModel,
    batches: TrainingBatches,
    settings: Settings,
    material: Material,
    asked: Mapping[str, Any],
    on_status: OnStatus,
) -> dict[str, Any]:
    validator = Validator(accelerator, material.space, material.val, rate_fps=settings.data.rate_fps)
    checkpoints = CheckpointFolder(folder / CHECKPOINTS)
    trainer = Trainer(
        Training(
            accelerator=accelerator,
            model=model,
            batches=batches,
            config=settings.train,
            validate=lambda: frame_auroc(validator.score(model.head, model.bank)),
            checkpoints=checkpoints,
            history=History(folder, accelerator),
            on_status=on_status,
            name=folder.name,
        )
    )
    position = trainer.run()
    scored = validator.score(model.head, model.bank)
    metrics: list[Any] = [None]
    if accelerator.is_main_process:
        metrics = [
            finish(
                folder, accelerator, model,
                settings=settings, material=material, position=position, scored=scored, asked=asked,
            )
        ]  # fmt: skip
        checkpoints.remove()
    broadcast_object_list(metrics)
    found: dict[str, Any] = metrics[0]
    return found


def _parts(settings: Settings, material: Material, accelerator: Accelerator) -> tuple[TrainedModel, TrainingBatches]:
    """Model and batches of this process. After both are made, dropout differs between processes, as it should."""
    queries = [annotation.query for annotation in (*material.train, *material.val)]
    model = build_model(settings, material.space, queries, accelerator.device)
    batches = training_batches(
        material.space,
        material.train,
        settings.data,
        streams=model.head.streams,
        seed=settings.train.seed,
        device=accelerator.device,
        shard=(accelerator.process_index, accelerator.num_processes),
    )
    if accelerator.process_index:
        seed_everything(settings.train.seed + accelerator.process_index)
    return model, batches


@contextmanager
def _owned(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Nobody else trains there meanwhile; the lock goes with the process that holds it, killed or not."""
    if not accelerator.is_main_process:
        yield
        return
    run_state(folder)  # before anything is put into a folder that is somebody else's
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TrainingError(
            f"{folder}: another process is training there\nwait for it, or give another --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _begin(folder: Path, asked: Mapping[str, Any], accelerator: Accelerator) -> RunState:
    """New folders get their settings; others must have the same ones. All processes hear the same answer."""
    found: list[RunState] = ["new"]
    if accelerator.is_main_process:
        found = [run_state(folder)]
        if found[0] == "new":
            write_json(folder / SETTINGS_FILE, asked)
        else:
            _check_same(folder, asked)
    broadcast_object_list(found)
    return found[0]


def _check_same(folder: Path, asked: Mapping[str, Any]) -> None:
    then = read_json(folder / SETTINGS_FILE)
    differences = [found for found in different(then, asked) if found[0] not in NO_NUMBERS]
    if not differences:
        return
    is_space = any(name.startswith("space.hash") for name, _, _ in differences)
    message = (
        f"{folder}: a run with other {'tokens' if is_space else 'settings'} is there\n{listed(differences, 'there', 'now')}\n"
        "ask for the same to go on with it, or give another --out"
    )
    raise CacheMismatchError(message) if is_space else ConfigError(message)


def metric_spread(metrics: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Mean and deviation (n - 1) of every number that all runs have, by dotted name."""
    tables = [dict(_numbers(one)) for one in metrics]
    names = [name for name in tables[0] if all(name in table for table in tables)]
    return {
        name: (fmean(values), stdev(values) if len(values) > 1 else 0.0)
        for name in names
        for values in [[table[name] for table in tables]]
    }


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _numbers(part, f"{path}.{name}" if path else str(name))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)


def _counted(annotations: Sequence[Any]) -> str:
    videos = len({annotation.video for annotation in annotations})
    return f"{len(annotations)} annotations of {videos} videos"
