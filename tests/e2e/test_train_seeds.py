"""Several seeds at once: the same numbers as one after another, killed and resumed, one that fails among others."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from qle.cli.app import app
from qle.errors import ConfigError, TrainingError
from qle.runs.record import CONFIG_FILE
from qle.train.folder import LOCK_FILE
from qle.train.progress import TrainStatus
from qle.train.request import TrainRequest
from qle.train.run import train_heads
from qle.train.seeds import seed_slots
from qle.train.summary import TrainSummary
from tests.conftest import CHECKOUT
from tests.planted import Planted, planted_cache

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = ("train.steps=6", "train.eval_every=3", "train.checkpoint_every=2", "data.windows_per_batch=2")
NUMBERS = ("model.safetensors", "text.safetensors", "history.jsonl", "metrics.json")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return planted_cache(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def one_after_another(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sequential") / "runs"
    train(planted, out, num_jobs=1)
    return out


def train(planted: Planted, out: Path, notes: list[str] | None = None, **changes: object) -> TrainSummary:
    def remember(status: TrainStatus) -> None:
        if status.note and notes is not None:
            notes.append(f"{status.run}: {status.note}")

    return train_heads(replace(planted.request(out, *SHORT), num_seeds=2, **changes), remember, lambda note: None)


def same_numbers(one: Path, other: Path) -> bool:
    return all(
        (one / f"seed-{number}" / name).read_bytes() == (other / f"seed-{number}" / name).read_bytes()
        for number in range(2)
        for name in NUMBERS
    )


def test_killed_at_once_they_go_on_to_the_numbers_of_one_after_another(planted, one_after_another, tmp_path, capsys):
    out = tmp_path / "runs"
    line = ["train-heads", *planted.arguments(out, *SHORT), "--seeds", "2", "--jobs", "2", "--track", "none"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    killed = [sys.executable, "tests/train_until.py", "2", *line]
    ended = subprocess.run(killed, cwd=CHECKOUT, env=env, capture_output=True, timeout=600, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    for number in range(2):  # nobody trains on without the parent: the locks are free at once
        (out / f"seed-{number}").mkdir(parents=True, exist_ok=True)
        with FileLock(out / f"seed-{number}" / LOCK_FILE).acquire(timeout=600):
            assert not (out / f"seed-{number}" / "config.json").exists()
    app([*line, "--json"], standalone_mode=False)
    shown = capsys.readouterr()
    assert [run["state"] for run in json.loads(shown.out)["runs"]] == ["trained", "trained"]
    assert same_numbers(out, one_after_another)
    ours, theirs = (json.loads((folder / "summary.json").read_text()) for folder in (out, one_after_another))
    assert ours["spread"] == theirs["spread"]


def test_a_seed_that_fails_leaves_the_others_finished(planted, one_after_another, tmp_path):
    out, notes = tmp_path / "runs", []
    (out / "seed-0").mkdir(parents=True)
    with (
        FileLock(out / "seed-0" / LOCK_FILE),
        pytest.raises(TrainingError, match="seed-0: another process is training"),
    ):
        train(planted, out, notes, num_jobs=2)
    assert (out / "seed-1" / "config.json").exists()
    assert not (out / "summary.json").exists()
    assert any(note.startswith("seed-0: failed: ") for note in notes)
    assert [run.state for run in train(planted, out, num_jobs=1).runs] == ["trained", "finished before"]
    assert same_numbers(out, one_after_another)


def test_neither_seeds_nor_a_training_go_into_a_run_of_another_kind(planted, one_after_another, tmp_path):
    run = one_after_another / "seed-0"
    with pytest.raises(ConfigError, match=r"--seeds: .*seed-0 is a run itself, and holds no others"):
        train(planted, run, num_jobs=1)
    assert not list(run.glob("seed-*"))
    imported = tmp_path / "imported"
    imported.mkdir()
    (imported / CONFIG_FILE).write_bytes((run / CONFIG_FILE).read_bytes())  # and no settings: it was never trained here
    with pytest.raises(ConfigError, match="an imported run is there"):
        train_heads(planted.request(imported, *SHORT), lambda status: None, lambda note: None)


def test_so_many_at_once_as_there_are_cores_for_their_threads(planted, monkeypatch):
    def places(cores: int, threads: str = "", **changes: object) -> list[int]:
        monkeypatch.setattr("qle.train.seeds.num_cores", lambda: cores)
        monkeypatch.setenv("QLE_THREADS", threads)
        return [slot.num_threads for slot in seed_slots(replace(planted.request(Path("runs")), **changes))]

    assert places(8, num_seeds=3) == [1, 1, 1]  # one thread each, as this process has
    assert places(2, num_seeds=3) == [1, 1]
    assert places(8, "4", num_seeds=3) == [4, 4]
    assert places(8, "8", num_seeds=3) == [8]
    assert places(8, "8", num_seeds=3, num_jobs=2) == [8, 8]  # as asked for
    assert places(2, num_seeds=3, num_jobs=1) == [1]
    with pytest.raises(ConfigError, match="--jobs 2: expected 1 or more, and --seeds"):
        places(2, num_jobs=2)
    monkeypatch.setenv("RANK", "0")
    assert places(8, num_seeds=3) == [1]
    with pytest.raises(ConfigError, match="leave --jobs out"):
        places(8, num_seeds=3, num_jobs=2)


def test_threads_are_shared_out_among_those_that_were_asked_for(planted, monkeypatch):
    monkeypatch.setattr("qle.train.seeds.num_cores", lambda: 8)
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    request = replace(planted.request(Path("runs")), num_seeds=4, num_jobs=2)
    assert [slot.num_threads for slot in seed_slots(request)] == [4, 4]


def test_a_request_knows_the_folders_of_its_seeds(planted):
    request: TrainRequest = planted.request(Path("runs"))
    assert request.seed_folder(3) == Path("runs/seed-3")
