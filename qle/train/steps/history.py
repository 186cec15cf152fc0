"""What happened in which step: history.jsonl in the run, and the same numbers to TensorBoard.

The file is appended to and cut back to the length that a checkpoint remembers, so that a run which was killed and went on
has the history of one that was not.
"""

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from qle.durable import append_line
from qle.errors import ConfigError, MissingDependencyError
from qle.runs.record import HISTORY_FILE, TENSORBOARD


def choose_trackers(track: str) -> list[str]:
    """Names for `Accelerator(log_with=...)`. auto: TensorBoard where it is installed."""
    if track not in ("auto", "none", "tensorboard"):
        raise ConfigError(f"--track {track}: choose one of auto, none, tensorboard")
    is_installed = importlib.util.find_spec("tensorboard") is not None
    if track == "tensorboard" and not is_installed:
        raise MissingDependencyError(
            "--track tensorboard: the package tensorboard is not installed\n"
            "run: pip install tensorboard, or pass --track none (history.jsonl is written in any case)"
        )
    return ["tensorboard"] if is_installed and track != "none" else []


class History:
    """Lines of numbers by step. Only the main process writes."""

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        self._path, self._accelerator = folder / HISTORY_FILE, accelerator

    def begin(self, step: int, num_bytes: int) -> None:
        """After `step` steps and so many bytes; what a killed run wrote later is dropped."""
        if self._accelerator.is_main_process:
            with open(self._path, "ab") as file:
                file.truncate(min(num_bytes, file.tell()))
        # purge_step: TensorBoard hides what it was told about later steps.
        options = {"tensorboard": {"purge_step": step + 1}}
        self._accelerator.init_trackers(TENSORBOARD, init_kwargs=options)

    @property
    def num_bytes(self) -> int:
        return os.path.getsize(self._path) if self._path.exists() else 0

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """One line; nested names in TensorBoard are the keys as they are ("loss/raw")."""
        if self._accelerator.is_main_process:
            append_line(self._path, json.dumps({"step": step, **values}, allow_nan=False))
        self._accelerator.log({name: value for name, value in values.items() if value is not None}, step=step)

    def end(self) -> None:
        """Not `accelerator.end_training()`, which would also part the processes: another seed may follow."""
        for tracker in self._accelerator.trackers:
            tracker.finish()
