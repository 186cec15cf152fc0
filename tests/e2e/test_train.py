"""Trainings on a cache with events that can be seen: learned, killed and resumed, spread over processes, refused."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qle.cache.reader import open_cache
from qle.cli.app import app
from qle.data.annotations import Annotation, read_annotations, write_annotations
from qle.errors import AnnotationError, CacheMismatchError, CheckpointError, ConfigError, InputError, TrainingError
from qle.eval.floors import Priors
from qle.outputs import write_json
from qle.runs.load import load_run
from qle.runs.record import token_streams
from qle.tasks.rows.scoring import RowScorer, score_annotations
from qle.tasks.rows.validation import frame_auroc
from qle.text import tiny
from qle.train.request import TrainRequest, resolve
from qle.train.run import train_heads
from qle.train.setup import build_model
from qle.train.summary import RunSummary
from tests.conftest import CHECKOUT
from tests.planted import Planted, planted_cache
from tests.running import record_fields

SHORT = ("train.steps=4", "train.eval_every=2", "data.windows_per_batch=2")
EVENTFUL = (
    *("train.steps=20", "train.eval_every=5", "train.checkpoint_every=7", "train.log_every=3", "train.accumulation=2"),
    *("data.windows_per_batch=2", "data.token_dropout=0.1", "data.flip=0.5", "data.positive_share=0.3"),
)
"""Checkpoints in the middle of epochs, dropout, augmentation, a running mean."""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return planted_cache(tmp_path_factory.mktemp("planted"))


pytestmark = pytest.mark.usefixtures("one_thread")


def request_of(planted: Planted, out: Path, *settings: str, **changes: object) -> TrainRequest:
    return replace(planted.request(out, *settings), **changes)


def train(planted: Planted, out: Path, *settings: str, **changes: object) -> RunSummary:
    return train_heads(request_of(planted, out, *settings, **changes), lambda status: None, lambda note: None).runs[0]


def history(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_a_head_learns_and_its_run_can_be_used(planted, tmp_path, capsys):
    out = tmp_path / "run"
    settings = ("train.steps=80", "train.lr=1e-2", "train.text_lr=1e-2", "train.eval_every=25", "train.ema_decay=0.9")
    line = ["train-heads", *planted.arguments(out, *settings, "data.windows_per_batch=4"), "--json", "-q"]
    app(line, standalone_mode=False)
    shown = json.loads(capsys.readouterr().out)
    assert shown["runs"][0]["state"] == "trained"
    assert shown["runs"][0]["metrics"]["selection"]["val_auroc"] > 0.9
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        *("config.json", "settings.json", "metrics.json", "environment.json", "history.jsonl"),
        *("model.safetensors", "text.safetensors", "tensorboard"),
    }
    assert list((out / "tensorboard").glob("events.*"))

    loaded = load_run(out, torch.device("cpu"))
    scorer = RowScorer(loaded.head, loaded.text, device=torch.device("cpu"), rate_fps=loaded.record.rate_fps)
    scored = score_annotations(scorer, open_cache(planted.cache).space(), read_annotations(planted.val))
    assert frame_auroc(scored) == loaded.record.selection["val_auroc"]  # the best weights, not the last ones
    priors = Priors.from_json(loaded.record.priors)
    assert priors.num_annotations == 18
    assert priors.val_videos
    assert not set(priors.val_videos) & set(priors.videos)
    best = max(line["val_auroc"] for line in history(out) if "val_auroc" in line)
    assert best == loaded.record.selection["val_auroc"]

    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / "checkpoints" / "step-00000001").mkdir(parents=True)  # killed just before it was done with them
    app([*line[:-2], "-q"], standalone_mode=False)
    assert "finished before with these settings, nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.iterdir() if path in before} == before
    assert not (out / "checkpoints").exists()
    with pytest.raises(ConfigError, match=r"other settings is there\ntrain\.lr: there 0\.01, now 0\.5"):
        app([*line, "--set", "train.lr=0.5"], standalone_mode=False)


def test_a_killed_training_goes_on_to_the_same_numbers(planted, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    line = [sys.executable, "tests/train_until.py", "17", "train-heads", *planted.arguments(killed, *EVENTFUL), "-q"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    ended = subprocess.run(
        [*line, "--track", "none"], cwd=CHECKOUT, env=env, capture_output=True, timeout=600, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert sorted(path.name for path in (killed / "checkpoints").iterdir()) == ["step-00000007", "step-00000014"]
    assert history(killed)[-1]["step"] > 14  # which is forgotten again
    with pytest.raises(CheckpointError, match="half written"):
        load_run(killed, torch.device("cpu"))

    notes: list[str] = []
    train_heads(request_of(planted, killed, *EVENTFUL), lambda status: notes.append(status.note), lambda note: None)
    train(planted, whole, *EVENTFUL)
    assert "going on after step 14 of 20" in notes
    for name in ("model.safetensors", "text.safetensors", "history.jsonl", "metrics.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert not (killed / "checkpoints").exists()


def test_two_processes_train_as_one_with_the_same_batch(planted, tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    settings = ("train.steps=9", "train.eval_every=5", "train.lr=1e-2", "train.clip_norm=0.5", "head.dropout=0.0")
    settings += ("train.ema_decay=0.0", "train.precision=float32")  # bfloat16 rounds the halves of a batch differently
    settings += ("data.windows_per_batch=4", "train.accumulation=2")
    monkeypatch.setattr(tiny, "DROPOUT", 0.0)  # each process draws its own
    train(planted, one, *settings)
    launch = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    launch += (
        " --dynamo_backend no --num_cpu_threads_per_process 1 --main_process_port 0 tests/train_without_dropout.py"
    )
    line = [
        sys.executable,
        *launch.split(),
        "train-heads",
        *planted.arguments(two, *settings),
        "--track",
        "none",
        "--json",
    ]
    env = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    ended = subprocess.run(line, cwd=CHECKOUT, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert json.loads(ended.stdout)["runs"][0]["state"] == "trained"  # one of the two talks
    assert json.loads((two / "environment.json").read_text())["num_processes"] == 2
    for ours, theirs in zip(history(one), history(two), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)
    start, ours, theirs = weights_before(planted, *settings), weights(one), weights(two)
    # Adam makes rounding large where a gradient is rounding alone (the bias of keys), so the weights are compared as a whole.
    moved = sum(((ours[name] - start[name]) ** 2).sum() for name in ours) ** 0.5
    apart = sum(((ours[name] - theirs[name]) ** 2).sum() for name in ours) ** 0.5
    assert apart < 2e-3 * moved


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors") | load_file(folder / "text.safetensors")


def weights_before(planted: Planted, *settings: str) -> dict[str, torch.Tensor]:
    request = request_of(planted, Path("nowhere"), *settings)
    streams = token_streams(open_cache(planted.cache).space())
    model = build_model(resolve(request), streams, [], torch.device("cpu"))
    return dict(model.head.state_dict()) | model.text.train_state()


def test_several_seeds_give_mean_and_deviation(planted, tmp_path):
    asked = request_of(planted, tmp_path / "runs", *SHORT, num_seeds=2, num_jobs=1)
    summary = train_heads(asked, lambda status: None, lambda note: None)
    scores = [run.metrics["selection"]["val_auroc"] for run in summary.runs]
    assert scores[0] != scores[1]
    mean, deviation = summary.spread["selection.val_auroc"]
    assert mean == pytest.approx(sum(scores) / 2)
    assert deviation == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)
    stored = json.loads((tmp_path / "runs" / "summary.json").read_text())
    assert stored["spread"]["selection.val_auroc"] == [mean, deviation]
    assert (tmp_path / "runs" / "seed-1" / "config.json").exists()


def test_training_stops_when_validation_gets_no_better(planted, tmp_path):
    settings = ("train.steps=50", "train.eval_every=1", "train.patience=2", "train.lr=1e-9", "train.text_lr=1e-9")
    run = train(planted, tmp_path / "run", *settings, "train.ema_decay=0.0", "data.windows_per_batch=2")
    selection = run.metrics["selection"]
    assert selection["steps"] == selection["step"] + 2 < 50


def test_a_loss_that_is_not_finite_ends_the_training_and_leaves_the_checkpoint(planted, tmp_path):
    out = tmp_path / "run"
    settings = ("train.lr=1e30", "train.checkpoint_every=1", "train.warmup=0.0", "train.steps=6", "train.ema_decay=0.0")
    with pytest.raises(TrainingError, match=r"step \d: the loss is not a finite number"):
        train(planted, out, *settings, "train.eval_every=6", "data.windows_per_batch=2")
    kept = sorted((out / "checkpoints").iterdir())
    assert kept
    assert all(torch.isfinite(value).all() for value in load_file(kept[-1] / "weights.safetensors").values())


def test_the_plan_of_a_dry_run_writes_nothing(planted, tmp_path, capsys):
    line = ["train-heads", *planted.arguments(tmp_path / "run", *SHORT), "--dry-run", "--json"]
    app(line, standalone_mode=False)
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"] == 4
    assert plan["parameters"]["head"][1] == 0
    assert plan["settings"]["head"]["dim"] == 16
    assert not (tmp_path / "run").exists()


def test_another_space_under_the_same_run_is_refused(planted, tmp_path):
    out = tmp_path / "run"
    train(planted, out, *SHORT)
    other = planted_cache(tmp_path / "other", streams=("patch",))
    moved = replace(other, train=planted.train, val=planted.val)
    with pytest.raises(CacheMismatchError, match=r"other tokens is there\n.*space\.hashed\.streams"):
        train(moved, out, *SHORT)


def test_a_space_without_the_streams_of_the_head_is_refused(tmp_path):
    frames = planted_cache(tmp_path, num_train=2, num_val=1, streams=("frame",))
    with pytest.raises(ConfigError, match="reads patch tokens, and this space has only frame"):
        train(frames, tmp_path / "run", *SHORT)


def changed(planted: Planted, tmp_path: Path, **fields: object) -> Path:
    """The training annotations, the first of them with other fields."""
    first, *rest = read_annotations(planted.train)
    path = tmp_path / "changed.jsonl"
    write_annotations(path, [replace(first, **fields), *rest])
    return path


def test_annotations_that_cannot_be_trained_on_are_one_error_each(planted, tmp_path):
    out, empty = tmp_path / "run", tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(AnnotationError, match=r"empty\.jsonl"):
        train(planted, out, *SHORT, annotations=empty)
    with pytest.raises(InputError, match=r"--val .*nowhere\.jsonl: no such file"):
        train(planted, out, *SHORT, val=tmp_path / "nowhere.jsonl")
    with pytest.raises(AnnotationError, match=r"strange\.mp4"):
        train(planted, out, *SHORT, annotations=changed(planted, tmp_path, video="strange.mp4"))
    with pytest.raises(InputError, match="too long: 1000 word pieces"):
        train(planted, out, *SHORT, annotations=changed(planted, tmp_path, query="word " * 1000))
    silent = [replace(one, windows=()) for one in read_annotations(planted.val)]
    write_annotations(tmp_path / "silent.jsonl", silent)
    with pytest.raises(AnnotationError, match="no row of the 9 annotated queries lies inside"):
        train(planted, out, *SHORT, val=tmp_path / "silent.jsonl")
    assert train(planted, out, *SHORT).state == "trained"  # nothing of all that has spoilt the folder


def test_shared_videos_and_missing_ones_are_said(planted, tmp_path):
    notes: list[str] = []
    extra = Annotation(qid="new", video="strange.mp4", query="a polyp", windows=((0.0, 1.0),), duration_s=9.0)
    write_annotations(tmp_path / "both.jsonl", [*read_annotations(planted.train), extra])
    asked = request_of(planted, tmp_path / "run", *SHORT, annotations=tmp_path / "both.jsonl", val=planted.train)
    train_heads(replace(asked, allow_missing=True), lambda status: None, notes.append)
    assert any("1 videos are not in the cache" in note for note in notes)
    assert any("6 of 6 validation videos are trained on too" in note for note in notes)
    again = train_heads(replace(asked, allow_missing=True), lambda status: None, notes.append)
    assert again.runs[0].state == "finished before"
    # Begun when the cache lacked two: now it is a training on other data.
    settings = record_fields(tmp_path / "run" / "settings.json")
    write_json(tmp_path / "run" / "settings.json", settings | {"missing": {"count": 2, "names": "other"}})
    with pytest.raises(ConfigError, match=r"other settings is there\nmissing\.count: there 2, now 1"):
        train_heads(replace(asked, allow_missing=True), lambda status: None, notes.append)


def test_a_folder_of_something_else_is_left_alone(planted, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(CheckpointError, match="neither empty nor a run"):
        train(planted, tmp_path, *SHORT)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_trainings_of_one_process_may_differ_in_precision(planted, tmp_path):
    """Accelerate keeps the first precision of a process and once refused the second training."""
    for precision in ("bfloat16", "float32", "bfloat16"):
        summary = train(
            planted, tmp_path / f"{precision}-{len(list(tmp_path.iterdir()))}", *SHORT, f"train.precision={precision}"
        )
        assert summary.state == "trained"
