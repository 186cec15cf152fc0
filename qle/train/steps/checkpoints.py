"""What a killed training goes on from: a folder for each of the last two checkpoints, complete or not there at all.

    checkpoints/step-00000200/
        state.json            position, best validation so far, length of the history, names and digests of the other files,
                              CPU threads, and a digest of itself
        weights.safetensors   trained tensors of head and text encoder
        optimiser.safetensors ema.safetensors best.safetensors   where there are any
        random-<process>.safetensors

Written beside, fsynced, renamed; safetensors and JSON only, so that no file is a program. Rates need no state
(optimiser.py), the order of the data follows from seed and epoch.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from qle.durable import fits_digest, hash_file, remove_tree, sync_file, sync_tree, with_digest
from qle.errors import CheckpointError
from qle.inputs import parse_json, read_record_bytes
from qle.weights import load_file

KEPT = 2
"""The newest, and the one before it."""
STATE_FILE = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a training is. Everything else about it follows from this, the tensors and the settings."""

    step: int = 0
    """Steps done."""
    best_score: float | None = None
    best_step: int = 0
    num_worse: int = 0
    """Validations since the best one."""
    history_bytes: int = 0

    def is_over(self, num_steps: int, patience: int) -> bool:
        return self.step >= num_steps or (patience > 0 and self.num_worse >= patience)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A position with its tensors, by file ("weights", "optimiser", "ema", "best", "random-0") and name."""

    position: Position
    tensors: Mapping[str, Mapping[str, Tensor]]


def threads_of(folder: Path) -> int | None:
    """CPU threads of the training whose checkpoints lie there; None where there is none yet, or none that says so."""
    steps = CheckpointFolder(folder).steps()
    if not steps:
        return None
    with suppress(OSError, ValueError, AttributeError):
        threads = parse_json(read_record_bytes(steps[-1] / STATE_FILE)).get("num_threads")
        return threads if isinstance(threads, int) and threads > 0 else None
    return None


class CheckpointFolder:
    """The checkpoints of one run. One process writes, all read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, checkpoint: Checkpoint) -> None:
        """Make it the newest; older ones but one are deleted."""
        target = self.path / f"step-{checkpoint.position.step:08d}"
        beside = self.path / f".{target.name}.tmp"
        remove_tree(beside)
        try:
            self._fill(beside, checkpoint)
        except BaseException:
            remove_tree(beside)  # half of it is no use, and the disk may be full
            raise
        if target.exists():  # a run that went on from an earlier one has come here again
            remove_tree(target)
        os.rename(beside, target)
        sync_file(self.path, "full")
        for old in self.steps()[:-KEPT]:
            remove_tree(old)

    def newest(self) -> Checkpoint | None:
        """None where no checkpoint was written yet."""
        steps = self.steps()
        return self._read(steps[-1]) if steps else None

    def remove(self) -> None:
        """After the end: nothing goes on from here."""
        remove_tree(self.path)

    @staticmethod
    def _fill(folder: Path, checkpoint: Checkpoint) -> None:
        folder.mkdir(parents=True)
        files = []
        for name, tensors in checkpoint.tensors.items():
            if tensors:
                # Copies: safetensors refuses tensors that share memory.
                whole = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
                (folder / f"{name}.safetensors").write_bytes(save(whole))
                files.append(name)
        # With another number of threads sums add up in another order, and the numbers are not those of an undisturbed run.
        state = {
            "position": asdict(checkpoint.position),
            "files": files,
            "digests": {name: hash_file(folder / f"{name}.safetensors") for name in files},
            "num_threads": torch.get_num_threads(),
        }
        (folder / STATE_FILE).write_bytes(with_digest(json.dumps(state, indent=1)))
        sync_tree(folder)

    def steps(self) -> list[Path]:
        """Oldest first."""
        return sorted(path for path in self.path.glob("step-*") if (path / STATE_FILE).exists())

    def _read(self, folder: Path) -> Checkpoint:
        try:
            content = read_record_bytes(folder / STATE_FILE)
            state = parse_json(content)
            position, files = Position(**state["position"]), [folder / f"{name}.safetensors" for name in state["files"]]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _damaged(folder / STATE_FILE, f"damaged ({error})") from error
        if not fits_digest(content):
            raise _damaged(folder / STATE_FILE, "damaged (not as it was written)")
        # Without the optimiser or the best weights it would go on all the same, to other numbers.
        if missing := [file for file in files if not file.exists()]:
            raise _damaged(missing[0], "missing")
        digests = state.get("digests", {})  # earlier versions had none
        if changed := [file for file in files if file.stem in digests and hash_file(file) != digests[file.stem]]:
            raise _damaged(changed[0], "damaged (not as it was written)")
        return Checkpoint(position=position, tensors={file.stem: load_file(file) for file in files})


def _damaged(file: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{file}: {what}\ndelete {file.parent} to go on from the checkpoint before it, or the run folder to begin anew"
    )
