"""Whose a run folder is, and whether what is asked now is what was asked when it was begun."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout

from qle.cache.differences import different, listed
from qle.errors import CacheMismatchError, CheckpointError, ConfigError, InputError, TrainingError
from qle.heads import HEADS, head_class
from qle.runs.record import (
    CHECKPOINTS,
    CONFIG_FILE,
    METRICS_FILE,
    SETTINGS_FILE,
    RunState,
    read_sealed,
    run_state,
    write_sealed,
)
from qle.train.steps.checkpoints import CheckpointFolder

LOCK_FILE = ".lock"
NO_NUMBERS = {"data.placement", "data.num_workers", "data.prefetch_batches"}
"""Settings that change how fast it goes and nothing else: a run may go on with others."""
SPACE_PARTS = ("space.hash", "more_spaces.")
"""Beginnings of the names under which a task's identity says what the tokens mean."""


@contextmanager
def owned(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Nobody else trains there meanwhile; the lock goes with the process that holds it, killed or not."""
    if not accelerator.is_main_process:
        yield
        return
    run_state(folder)  # before anything is put into a folder that is somebody else's
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}\nname another --out") from error
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


def check_seeds(folder: Path) -> None:
    """ConfigError for a folder that is a run itself: whoever is given it would never see the runs of its seeds."""
    if folder.is_dir() and any((folder / name).exists() for name in (CONFIG_FILE, SETTINGS_FILE)):
        raise ConfigError(f"--seeds: {folder} is a run itself, and holds no others\ngive another --out")


def begin(folder: Path, asked: Mapping[str, Any], accelerator: Accelerator) -> RunState:
    """What stands there, and an error unless it was asked for with the same words. All processes hear the same answer."""
    states: list[RunState] = ["new"]
    if accelerator.is_main_process:
        states = [run_state(folder)]
        if states[0] == "unfinished" and CheckpointFolder(folder / CHECKPOINTS).newest() is None:
            states = ["new"]  # it was killed before there was anything to lose
        if states[0] != "new":
            _check_same(folder, asked)
    broadcast_object_list(states)
    return states[0]


def announce(folder: Path, asked: Mapping[str, Any], accelerator: Accelerator) -> None:
    """From now on the folder is a run that has not ended."""
    if accelerator.is_main_process:
        write_sealed(folder / SETTINGS_FILE, asked)


def read_metrics(folder: Path) -> Any:
    """What validation said when the run was finished; CheckpointError where the file no longer says it."""
    path = folder / METRICS_FILE
    metrics = read_sealed(path)
    selection = metrics.get("selection") if isinstance(metrics, dict) else None
    said = selection if isinstance(selection, dict) else {}
    scores = [value for name, value in said.items() if name.startswith("val_")]
    has_counts = all(isinstance(said.get(name), int) for name in ("step", "steps"))
    if not has_counts or not scores or not isinstance(scores[0], int | float | None):  # None: it was not a number
        raise CheckpointError(
            f"{path}: not what validation said of a run (no selection with step, steps and its score)\n"
            "restore it from a copy, or train again into another --out"
        )
    return metrics


def _check_same(folder: Path, asked: Mapping[str, Any]) -> None:
    if not (folder / SETTINGS_FILE).exists():
        raise ConfigError(f"{folder}: an imported run is there, which no training goes on with\ngive another --out")
    then = _in_full(read_sealed(folder / SETTINGS_FILE))
    differences = [difference for difference in different(then, asked) if difference[0] not in NO_NUMBERS]
    if not differences:
        return
    is_space = any(name.startswith(SPACE_PARTS) for name, _, _ in differences)
    message = (
        f"{folder}: a run with other {'tokens' if is_space else 'settings'} is there\n{listed(differences, 'there', 'now')}\n"
        "ask for the same to go on with it, or give another --out"
    )
    raise CacheMismatchError(message) if is_space else ConfigError(message)


def _in_full(then: Any) -> Any:
    """Settings that an earlier version wrote, with what it had no setting for."""
    head = then.get("head") if isinstance(then, Mapping) else None
    if not isinstance(head, Mapping) or head.get("name") not in HEADS:
        return then
    return {**then, "head": {**head_class(str(head["name"])).earlier, **head}}
