"""The history is cut back to where a checkpoint stands, and trackers are asked for by name."""

import importlib.util
import json

import pytest
from accelerate import Accelerator

from qle.errors import ConfigError, MissingDependencyError
from qle.train.steps.history import History, choose_trackers


def test_what_was_written_after_the_checkpoint_is_forgotten(tmp_path):
    history = History(tmp_path, Accelerator(cpu=True))
    history.begin(0, 0)
    history.add(1, {"loss": 0.5})
    kept = history.num_bytes
    history.add(2, {"loss": 0.25})
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"step": 3, "lo')  # torn by a kill
    again = History(tmp_path, Accelerator(cpu=True))
    again.begin(1, kept)
    again.add(2, {"loss": 0.125})
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.125}]


def test_trackers_are_chosen_by_name_and_by_what_is_installed(monkeypatch):
    assert choose_trackers("none") == []
    with pytest.raises(ConfigError, match="--track wandb: choose one of"):
        choose_trackers("wandb")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_trackers("auto") == []
    with pytest.raises(MissingDependencyError, match="pip install tensorboard"):
        choose_trackers("tensorboard")
