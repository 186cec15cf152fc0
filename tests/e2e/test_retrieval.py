"""A head that ranks videos, from a cache to numbers: trained by the command, killed and resumed, measured, refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from qle.cache.reader import open_cache
from qle.cache.spaces import create_space
from qle.cli.app import app
from qle.config import override
from qle.data.annotations import read_annotations, write_annotations
from qle.errors import AnnotationError, CacheMismatchError, CheckpointError, ConfigError
from qle.eval.report import Report
from qle.eval.request import EvaluationRequest
from qle.eval.run import evaluate_runs
from qle.runs.load import load_run
from qle.tasks.retrieval.batches.frames import FrameSource
from qle.tasks.retrieval.scoring import VideoRanker
from qle.train.progress import TrainStatus
from qle.train.request import TrainRequest
from qle.train.run import train_heads
from tests.planted_retrieval import (
    COLOURS,
    SMALL_HEAD,
    THINGS,
    VAL,
    PlantedRetrieval,
    planted_retrieval,
    retrieval_spec,
)

pytestmark = pytest.mark.usefixtures("one_thread")
LEARN = (
    *("train.steps=80", "train.lr=3e-3", "train.text_lr=1e-2", "train.eval_every=20", "train.ema_decay=0.9"),
    *("data.pairs_per_batch=8", "data.captions_per_video=2"),
)
SHORT = (
    "train.steps=8",
    "train.checkpoint_every=3",
    "train.eval_every=4",
    "data.pairs_per_batch=8",
    "train.log_every=1",
)
WITH_DROPOUT = "head.dropout=0.3"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedRetrieval:
    return planted_retrieval(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def trained(planted: PlantedRetrieval, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    app(["train-heads", *planted.arguments(out, *LEARN), "-q", "--track", "none"], standalone_mode=False)
    return out


def request_of(planted: PlantedRetrieval, out: Path, *settings: str, **changes: object) -> TrainRequest:
    asked = TrainRequest(
        cache=planted.cache, annotations=planted.train, val=planted.val, head="tmass", out=out, device="cpu",
        settings=override({}, [*SMALL_HEAD, *settings]), track="none",
    )  # fmt: skip
    return replace(asked, **changes)


def train(request: TrainRequest, die_at: int = -1) -> None:
    def on_status(status: TrainStatus) -> None:
        if status.step == die_at:
            raise KeyboardInterrupt

    train_heads(request, on_status, lambda note: None)


def test_a_head_learns_pairs_of_words_that_it_never_saw_together(planted: PlantedRetrieval, trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text())
    found = metrics["validation"]["metrics"]
    chance = found["text_to_video"]["r@1"]["floors"]["chance"]
    assert chance == pytest.approx(1 / 8)
    assert found["text_to_video"]["r@1"]["value"] > 3 * chance
    assert found["video_to_text"]["r@1"]["value"] > 3 * chance
    selected = metrics["selection"]["val_r@1"]
    assert selected == pytest.approx(found["text_to_video"]["r@1"]["value"], abs=1e-3)
    assert selected == max(
        row["val_r@1"]
        for row in map(json.loads, (trained / "history.jsonl").read_text().splitlines())
        if "val_r@1" in row
    )


def measured(run: Path, planted: PlantedRetrieval, **options: Any) -> Report:
    """What an evaluation says about the run."""
    settings = {"cache": planted.cache, "annotations": planted.val, "device": "cpu"} | options
    return evaluate_runs(EvaluationRequest(checkpoints=(run,), **settings)).runs[0].report


def test_the_run_says_the_same_again(planted: PlantedRetrieval, trained: Path) -> None:
    """What validation measured is what an evaluation measures, and what a search would be told."""
    expected = json.loads((trained / "metrics.json").read_text())["validation"]["metrics"]
    report = measured(trained, planted, with_dsl=True, published_leaking_score=True, num_bootstrap=50)
    for group in ("text_to_video", "video_to_text"):
        for name, metric in report.metrics[group].items():
            assert metric.value == pytest.approx(expected[group][name]["value"], abs=1e-6)
    assert {"text_to_video_dsl", "text_to_video_published_leak"} <= set(report.metrics)
    assert report.settings["stream"] == "frame"
    assert (report.settings["num_val_videos"], report.settings["num_trained_videos"]) == (8, 0)
    assert measured(trained, planted, annotations=planted.train).settings["num_trained_videos"] == 24

    run = load_run(trained, torch.device("cpu"))
    frames = FrameSource.from_recipe(open_cache(planted.cache), run.record.recipe)
    keys = [f"val{number}.mp4" for number in range(len(VAL))]
    ranker = VideoRanker(run.head, run.text, frames, device=torch.device("cpu"))
    found = ranker.similarity([f"a {COLOURS[colour]} {THINGS[thing]}" for colour, thing in VAL], keys)
    assert (found.argmax(1) == range(len(VAL))).mean() > 0.3


def test_the_command_shows_the_numbers_beside_chance(
    planted: PlantedRetrieval, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    known = read_annotations(planted.val, allow_unlabelled=True)
    gone = replace(known[0], qid="gone", video="gone.mp4")
    write_annotations(tmp_path / "val.jsonl", [*known, gone])
    line = ["eval", "--checkpoint", str(trained), "--cache", str(planted.cache), "--annotations"]
    app([*line, str(tmp_path / "val.jsonl"), "--allow-missing", "--device", "cpu", "-q"], standalone_mode=False)
    shown = capsys.readouterr()
    assert "chance" in shown.out
    assert "text_to_video r@1" in shown.out
    assert "1 videos are not in the cache" in shown.err
    assert "published_leak" not in shown.out  # that score must be asked for by its name
    flags = ["--published-leaking-score", "--json", "--device", "cpu", "-q"]
    app([*line, str(planted.val), *flags], standalone_mode=False)
    report = json.loads(capsys.readouterr().out)
    assert report["metrics"]["text_to_video_published_leak"]["r@1"]["value"] is not None
    assert "No measure of retrieval" in report["protocol"]["published_leak"]


def test_a_killed_training_goes_on_to_the_same_numbers(planted: PlantedRetrieval, tmp_path: Path) -> None:
    whole, killed = (request_of(planted, tmp_path / name, *SHORT, WITH_DROPOUT) for name in ("whole", "killed"))
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(killed, die_at=5)
    assert not (killed.out / "model.safetensors").exists()
    train(killed)
    for name in ("model.safetensors", "text.safetensors", "history.jsonl", "metrics.json"):
        assert (killed.out / name).read_bytes() == (whole.out / name).read_bytes(), name


def test_what_cannot_be_trained_is_said_before_the_first_step(planted: PlantedRetrieval, tmp_path: Path) -> None:
    request = request_of(planted, tmp_path / "run", *SHORT)
    with pytest.raises(ConfigError, match="reads frames of one stream"):
        train(replace(request, streams=("frames", "frames:frame")))
    with pytest.raises(ConfigError, match="endpoints belong to clips"):
        train(replace(request, streams=("frames+tef",)))
    with pytest.raises(ConfigError, match="name the space in --stream"):
        train(replace(request, streams=("frames",), space="frames"))
    one = [row for row in read_annotations(planted.val, allow_unlabelled=True) if row.video == "val0.mp4"]
    write_annotations(tmp_path / "one.jsonl", one)
    with pytest.raises(AnnotationError, match="there is nothing to rank"):
        train(replace(request, val=tmp_path / "one.jsonl"))
    with pytest.raises(AnnotationError, match="a video is told from others"):
        train(replace(request, annotations=tmp_path / "one.jsonl"))
    with pytest.raises(ConfigError, match="no setting 'windows_per_batch'"):
        train(request_of(planted, tmp_path / "run", "data.windows_per_batch=3"))
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_run_is_not_measured_on_another_space(planted: PlantedRetrieval, trained: Path, tmp_path: Path) -> None:
    create_space(tmp_path / "cache", retrieval_spec("others"))
    with pytest.raises(CacheMismatchError, match="has no space"):
        measured(trained, planted, cache=tmp_path / "cache")
    with pytest.raises(CheckpointError, match="no such run folder"):
        measured(tmp_path / "none", planted)


def test_a_space_that_would_not_be_listened_to_is_refused(planted: PlantedRetrieval, trained: Path) -> None:
    line = ["eval", "--checkpoint", trained, "--cache", planted.cache, "--annotations", planted.val, "-q"]
    with pytest.raises(ConfigError, match="--space nonsense: runs that rank videos find the space"):
        app([*map(str, line), "--space", "nonsense"], standalone_mode=False)


def test_a_training_can_be_planned(planted: PlantedRetrieval, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    line = ["train-heads", *planted.arguments(tmp_path / "run", *LEARN), "--dry-run", "--json", "-q"]
    app(line, standalone_mode=False)
    plan = json.loads(capsys.readouterr().out)
    assert (plan["steps"], plan["steps_per_epoch"]) == (80, 6)
    assert plan["space"].endswith(":frame")
    assert plan["settings"]["data"]["captions_per_video"] == 2
