"""Heads that answer with spans, trained on imported features with events that can be read off: learned, killed and resumed,
several seeds at once, refused."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from qle.cache.reader import open_cache
from qle.cli.app import app
from qle.config import override
from qle.data.annotations import Annotation, read_annotations, write_annotations
from qle.data.streams.features import StreamSet
from qle.errors import AnnotationError, CacheMismatchError, ConfigError
from qle.eval.moments.report import validation_value
from qle.runs.load import load_run
from qle.runs.record import check_space
from qle.tasks.moments.scoring import MomentScorer, score_annotations
from qle.train.folder import LOCK_FILE
from qle.train.request import TrainRequest
from qle.train.run import train_heads
from qle.train.summary import RunSummary
from tests.conftest import CHECKOUT
from tests.planted_moments import CLIP_S, planted_cache, planted_features

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
NUM_TRAIN, NUM_VAL, NUM_CHANNELS, PER_VIDEO = 40, 8, 5, 3
SMALL = (
    *("head.dim=32", "head.num_heads=2", "head.hidden=64", "head.encoder_layers=1", "head.num_queries=4"),
    *("head.text_to_video_layers=1", "head.input_dropout=0.0", "head.dropout=0.0", "text.dim=16"),
    *("data.window_clips=32", "data.items_per_batch=16", "train.precision=float32"),
)
LEARNING = (
    *("train.steps=220", "train.lr=3e-3", "train.text_lr=1e-2", "train.ema_decay=0.9", "train.eval_every=80"),
    *(
        "head.num_queries=3",
        "head.losses.background_weight=0.3",
        "head.losses.saliency=2.0",
        "data.has_negatives=false",
    ),
)
"""Few guesses, most of which are right, and saliency that says soon where to look: learned in seconds."""
EVENTFUL = (
    *("train.steps=20", "train.eval_every=5", "train.checkpoint_every=7", "train.log_every=3", "train.accumulation=2"),
    *("data.window_clips=16", "data.items_per_batch=8", "head.dropout=0.1", "head.input_dropout=0.2"),
)
"""Windows and negatives that are drawn, dropout, checkpoints in the middle of epochs."""
NUMBERS = ("model.safetensors", "text.safetensors", "history.jsonl", "metrics.json")


@dataclass(frozen=True, kw_only=True)
class Features:
    """Two spaces of one cache."""

    cache: Path
    train: Path
    val: Path

    def arguments(self, out: Path, *settings: str) -> list[str]:
        line = [
            "--cache",
            self.cache,
            "--stream",
            "rgb",
            "--stream",
            "flow+tef",
            "--head",
            "qd_detr",
            "--device",
            "cpu",
        ]
        line += ["--annotations", self.train, "--val", self.val, "--out", out, "--track", "none"]
        assignments = [part for setting in (*SMALL, *settings) for part in ("--set", setting)]
        return [*map(str, line), *assignments]

    def request(self, out: Path, *settings: str) -> TrainRequest:
        return TrainRequest(
            cache=self.cache, annotations=self.train, val=self.val, head="qd_detr", streams=("rgb", "flow+tef"), out=out,
            settings=override({}, [*SMALL, *settings]), device="cpu", track="none",
        )  # fmt: skip


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Features:
    root = tmp_path_factory.mktemp("features")
    rgb, flow = {}, {}
    annotations: dict[str, list[Annotation]] = {"train": [], "val": []}
    for number in range(NUM_TRAIN + NUM_VAL):
        rng = np.random.default_rng([5, number])
        split, num_clips = "train" if number < NUM_TRAIN else "val", int(rng.integers(20, 31))
        starts = rng.integers(0, num_clips - 4, PER_VIDEO)
        stops = np.minimum(num_clips, starts + rng.integers(3, 9, PER_VIDEO))
        events = [*zip(starts.tolist(), stops.tolist(), rng.permutation(NUM_CHANNELS).tolist(), strict=False)]
        name = f"{split}{number}"
        rgb[name] = planted_features(num_clips, events, number)
        flow[name] = planted_features(
            num_clips + number % 2, events, 1000 + number
        )  # one more now and then, as it happens
        annotations[split] += [
            Annotation(
                qid=f"{name}-{channel}", video=name, query=f"event {channel}",
                windows=((start * CLIP_S, stop * CLIP_S),), duration_s=num_clips * CLIP_S,
            )
            for start, stop, channel in events
        ]  # fmt: skip
    planted_cache(root, rgb, "rgb")
    cache = planted_cache(root, flow, "flow")
    for split, rows in annotations.items():
        write_annotations(root / f"{split}.jsonl", rows)
    return Features(cache=cache, train=root / "train.jsonl", val=root / "val.jsonl")


def train(features: Features, out: Path, *settings: str, **changes: object) -> RunSummary:
    asked = replace(features.request(out, *settings), **changes)
    return train_heads(asked, lambda status: None, lambda note: None).runs[0]


def same_bytes(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in NUMBERS)


def test_a_head_learns_where_events_are_and_its_run_can_be_used(features, tmp_path, capsys):
    out = tmp_path / "run"
    line = ["train-heads", *features.arguments(out, *LEARNING)]
    app([*line, "--json", "-q"], standalone_mode=False)
    run = json.loads(capsys.readouterr().out)["runs"][0]
    assert run["state"] == "trained"
    assert run["placement"].startswith("ram")
    found = run["metrics"]["validation"]["metrics"]["moments"]
    floors = [max(found[name]["floors"].values()) for name in ("r1@0.5", "map", "miou")]
    assert found["r1@0.5"]["value"] > floors[0] + 0.4
    assert found["map"]["value"] > floors[1] + 0.2
    assert found["miou"]["value"] > floors[2] + 0.3

    loaded = load_run(out, CPU)
    record = loaded.record
    assert record.recipe is not None
    assert [part.has_endpoints for part in record.recipe.parts] == [False, True]
    assert record.recipe.dim == 8 + 8 + 2
    assert record.ranking is not None
    assert [use.name for use in record.spaces] == ["rgb", "flow"]
    streams = StreamSet.from_recipe(open_cache(features.cache), record.recipe)
    check_space(record, *streams.spaces)
    ranked = score_annotations(
        MomentScorer(loaded.head, loaded.text, streams, device=CPU), read_annotations(features.val)
    )
    assert validation_value(ranked, "mAP") == record.selection["val_mAP"]  # the best weights, not the last ones
    history = [json.loads(row) for row in (out / "history.jsonl").read_text().splitlines()]
    assert max(row["val_mAP"] for row in history if "val_mAP" in row) == record.selection["val_mAP"]

    app([*line, "-q"], standalone_mode=False)
    assert "finished before with these settings" in capsys.readouterr().out
    other_ends = ["rgb+tef" if word == "rgb" else word for word in line]  # endpoints twice
    with pytest.raises(
        ConfigError, match=r"other settings is there\nstreams: there .*:frame', .* now .*:frame\+tef', "
    ):
        app(other_ends, standalone_mode=False)
    with pytest.raises(ConfigError, match=r"train\.select: there 'mAP', now 'mIoU'"):
        app([*line, "--set", "train.select=mIoU"], standalone_mode=False)


@pytest.mark.faults
def test_seeds_that_were_trained_at_once_and_killed_go_on_to_the_same_numbers(features, tmp_path):
    killed, alone = tmp_path / "killed", tmp_path / "alone"
    line = ["train-heads", *features.arguments(killed, *EVENTFUL), "--seeds", "2", "--jobs", "2", "-q"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    ended = subprocess.run(
        [sys.executable, "tests/train_until.py", "10", *line], cwd=CHECKOUT, env=env, capture_output=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    left = set()
    for number in range(2):
        with FileLock(killed / f"seed-{number}" / LOCK_FILE).acquire(timeout=600):
            left |= {path.name for path in (killed / f"seed-{number}").glob("checkpoints/*")}
    assert left >= {"step-00000007"}
    asked = replace(features.request(killed, *EVENTFUL), num_seeds=2, num_jobs=1)
    summary = train_heads(asked, lambda status: None, lambda note: None)
    assert [run.seed for run in summary.runs] == [0, 1]
    assert "selection.val_mAP" in summary.spread
    train(features, alone, *EVENTFUL, "train.seed=1")
    assert same_bytes(killed / "seed-1", alone)
    assert not same_bytes(killed / "seed-0", alone)


def test_ratings_alone_can_be_learned(features, tmp_path):
    """As TVSum has them: clips that twenty people rated, and no moments."""
    changes: dict[str, object] = {}
    for name in ("train", "val"):
        path = tmp_path / f"{name}.jsonl"
        write_annotations(path, [rated(one) for one in read_annotations(getattr(features, name))])
        changes["annotations" if name == "train" else "val"] = path
    no_spans = ("head.losses.span=0.0", "head.losses.giou=0.0", "head.losses.label=0.0")
    settings = (*no_spans, "train.steps=30", "train.lr=3e-3", "train.eval_every=15", "train.select=top5-mAP")
    run = train(features, tmp_path / "run", *settings, **changes)
    found = run.metrics["validation"]["metrics"]["highlights"]["top5_map"]
    assert run.metrics["selection"]["val_top5-mAP"] == found["value"] > max(found["floors"].values()) + 0.3


def rated(annotation: Annotation) -> Annotation:
    assert annotation.duration_s is not None
    rng = np.random.default_rng(len(annotation.qid))
    ratings = rng.integers(1, 3, (int(annotation.duration_s / CLIP_S), 20)).astype(np.float32)
    for start_s, end_s in annotation.windows:
        ratings[int(start_s / CLIP_S) : int(end_s / CLIP_S)] += 3
    return replace(annotation, windows=(), is_labelled=False, saliency=ratings, clip_s=CLIP_S)


def test_the_plan_shows_what_is_joined_and_where_it_will_lie(features, tmp_path, capsys):
    app(["train-heads", *features.arguments(tmp_path / "run", *EVENTFUL), "--dry-run"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert ":frame + flow-" in shown
    assert "frame+tef" in shown
    assert "18 numbers a clip, 16 clips a window" in shown
    assert "ram (" in shown
    assert re.search(r"head\.losses\.costs\.giou +1\.0", shown)
    assert not (tmp_path / "run").exists()


def test_without_a_stream_the_only_space_is_read_with_endpoints(features, tmp_path):
    shortened = ("train.steps=2", "data.items_per_batch=4")
    run = train(features, tmp_path / "run", *shortened, streams=(), space="rgb")
    recipe = load_run(Path(run.folder), CPU).record.recipe
    assert recipe is not None
    assert [(part.stream, part.has_endpoints) for part in recipe.parts] == [("frame", True)]
    with pytest.raises(ConfigError, match="--space and --stream: name the spaces in --stream"):
        train(features, tmp_path / "both", space="rgb")
    with pytest.raises(ConfigError, match="--stream: head qle reads the rows of one space"):
        train(features, tmp_path / "rows", head="qle", settings={})


def test_streams_and_annotations_that_teach_nothing_are_refused(features, tmp_path):
    rows = read_annotations(features.val)
    write_annotations(tmp_path / "absent.jsonl", [replace(row, windows=()) for row in rows])
    with pytest.raises(AnnotationError, match=r"none of the 24 annotated queries has a window, which train.select=mAP"):
        train(features, tmp_path / "run", val=tmp_path / "absent.jsonl")
    with pytest.raises(AnnotationError, match=r"has a clip that .* or more, which train\.select=HL-mAP needs"):
        train(features, tmp_path / "run", "train.select=HL-mAP")
    write_annotations(tmp_path / "hidden.jsonl", [replace(row, windows=(), is_labelled=False) for row in rows])
    with pytest.raises(AnnotationError, match=r"--annotations: 24 of 24 rows have neither windows nor ratings"):
        train(features, tmp_path / "run", annotations=tmp_path / "hidden.jsonl")
    assert not (tmp_path / "run").exists()


def test_other_features_under_the_same_run_are_refused(features, tmp_path):
    out, settings = tmp_path / "run", ("train.steps=2", "data.items_per_batch=4")
    train(features, out, *settings)
    with pytest.raises(CacheMismatchError, match=r"other tokens is there\n"):
        train(features, out, *settings, streams=("flow+tef", "rgb"))
