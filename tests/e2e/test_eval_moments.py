"""`qle eval` on runs whose heads answer with spans: one that finds what was planted is right by every protocol."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from qle.cli.app import app
from qle.data.annotations import Annotation, read_annotations, write_annotations
from qle.errors import AnnotationError, CheckpointError, ConfigError
from qle.eval.floors import priors_of
from qle.eval.request import EvaluationRequest
from qle.eval.run import evaluate_runs
from qle.heads import HEADS
from qle.heads.base import TokenShapes
from qle.runs.record import RunRecord, SpaceUse, save_run
from qle.segments.ranked import Ranking
from qle.text import TextRequest, build_text_encoder
from tests.planted_moments import PlantedConfig, PlantedHead, planted_cache, planted_features, planted_streams

pytestmark = pytest.mark.usefixtures("one_thread")

CLIP_S = 2.0
EVENTS = {"short": [(10, 20, 0), (40, 45, 0)], "long": [(70, 80, 0), (200, 260, 1)], "empty": []}
LENGTHS = {"short": 60, "long": 300, "empty": 40}


@pytest.fixture(autouse=True)
def _planted_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEADS, "planted", "tests.planted_moments:PlantedHead")


def asked_of(video: str, channel: int, qid: int) -> Annotation:
    """What was planted, rated by three people who agree."""
    events = [(a, b) for a, b, own in EVENTS[video] if own == channel]
    saliency = np.full((LENGTHS[video], 3), np.nan, np.float32)
    for start, stop in events:
        saliency[start:stop] = 4
    return Annotation(
        qid=str(qid), video=video, query=f"event {channel}", windows=tuple((a * CLIP_S, b * CLIP_S) for a, b in events),
        duration_s=LENGTHS[video] * CLIP_S, saliency=saliency if events else None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imported")
    return planted_cache(root, {name: planted_features(LENGTHS[name], events) for name, events in EVENTS.items()})


@pytest.fixture(scope="module")
def present(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("annotations") / "present.jsonl"
    write_annotations(path, [asked_of("short", 0, 1), asked_of("long", 0, 2), asked_of("long", 1, 3)])
    return path


@pytest.fixture(scope="module")
def run(cache: Path, present: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As training would leave it."""
    folder = tmp_path_factory.mktemp("run") / "run"
    streams = planted_streams(cache)
    text = build_text_encoder(TextRequest(name="tiny", dim=8), torch.device("cpu"))
    head = PlantedHead(PlantedConfig(), TokenShapes(streams={}, text_dim=text.dim, sentence_dim=text.sentence_dim))
    space = streams.spaces[0].record
    record = RunRecord(
        head="planted", head_config={"num_queries": 4}, text=text.spec(), text_dim=text.dim,
        sentence_dim=text.sentence_dim, recipe=streams.recipe, ranking=Ranking(threshold=0.5, round_s=2.0),
        space=SpaceUse(
            name=space.name, hash=space.hash, hashed=space.hashed, rate_fps=None,
            streams={stream.name: stream.row_shape for stream in space.streams},
        ),
        priors=priors_of(read_annotations(present)).to_json(), settings={}, selection={}, versions={},
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    save_run(folder, record, head, text.train_state(), {})
    return folder


def command(*arguments: object) -> None:
    app(["eval", *map(str, arguments), "--quiet"], standalone_mode=False)


def test_ranked_moments_are_the_protocol_of_such_heads(run, cache, present, tmp_path, capsys):
    every = tmp_path / "every.jsonl"
    absent = [asked_of("empty", 0, 4), asked_of("short", 1, 5)]
    write_annotations(every, [*read_annotations(present), *absent])
    out = tmp_path / "report.json"
    command("--checkpoint", run, "--cache", cache, "--annotations", every, "--device", "cpu", "--out", out)
    shown = capsys.readouterr()
    report = json.loads(out.read_text())
    values = {
        group: {name: metric["value"] for name, metric in metrics.items()}
        for group, metrics in report["metrics"].items()
    }
    assert values["moments"]["r1@0.7"] == values["moments"]["map"] == values["moments"]["long_map"] == 1.0
    assert values["highlights"]["very_good_map"] == values["highlights"]["fair_hit1"] == 1.0
    assert values["absent"]["presence_auroc"] == 1.0
    assert values["absent"]["false_alarm_rate"] == values["absent"]["miss_rate"] == 0.0
    assert set(report["metrics"]["moments"]["map"]["floors"]) == {"best_span", "whole_video", "uniform"}
    assert report["metrics"]["moments"]["map"]["floors"]["whole_video"] < 0.5
    assert report["settings"]["best_span_from"] == "training"
    assert (report["counts"]["short_pairs"], report["counts"]["absent_pairs"]) == (1, 2)
    assert "5 (video, query) pairs, 2 of them absent" in shown.out
    assert "clipped to the video, rounded to 2 s, overlapping ones kept, at most 10" in shown.out
    assert "videos were trained on: the numbers are too hopeful" in shown.err


def test_a_run_and_the_file_that_it_writes_have_the_same_official_numbers(run, cache, present, tmp_path, capsys):
    said = tmp_path / "said.jsonl"
    asked = ["--checkpoint", str(run), "--cache", str(cache)]
    app(
        ["localize", *asked, "--queries", str(present), "--format", "jsonl", "--out", str(said), "-q"],
        standalone_mode=False,
    )
    for protocol in ("qvhighlights", "charades"):
        command(*asked, "--annotations", present, "--protocol", protocol, "--json", "--device", "cpu")
        of_run = json.loads(capsys.readouterr().out)
        command("--predictions", said, "--annotations", present, "--protocol", protocol, "--json")
        of_file = json.loads(capsys.readouterr().out)
        if protocol == "qvhighlights":
            assert of_run == of_file
            assert list(of_run)[:4] == ["brief", "HL-min-Fair", "HL-min-Good", "HL-min-VeryGood"]
            assert of_run["brief"]["MR-full-mAP"] == of_run["brief"]["HL-min-VeryGood-mAP"] == 100.0
        else:
            values = [
                {name: metric["value"] for name, metric in found["metrics"]["charades"].items()}
                for found in (of_run, of_file)
            ]
            assert values[0] == values[1]
            assert values[0]["r1@0.7"] == 1.0


def test_an_annotation_file_without_ratings_has_official_moments_alone(run, cache, present, tmp_path):
    plain = tmp_path / "plain.jsonl"
    write_annotations(plain, [replace(one, saliency=None) for one in read_annotations(present)])
    request = EvaluationRequest(
        checkpoints=(run,), cache=cache, annotations=plain, protocol="qvhighlights", device="cpu"
    )
    official = evaluate_runs(request).runs[0].official
    assert list(official) == ["brief", "full", "long", "middle", "short"]


def test_floors_stand_beside_annotations_that_do_not_say_how_long_videos_are(run, cache, tmp_path):
    published = tmp_path / "charades_sta_test.txt"
    published.write_text("short 2.0 8.0##event 0\nlong 40.0 52.0##event 1\n")
    request = EvaluationRequest(
        checkpoints=(run,), cache=cache, annotations=published, protocol="charades", device="cpu"
    )
    report = evaluate_runs(request).runs[0].report
    assert set(report.metric("charades.r1@0.5").floors) == {"best_span", "whole_video", "uniform"}


def test_what_cannot_be_measured_is_said_before_anything_is_scored(run, cache, present, tmp_path):
    def on_progress(done: int, total: int, what: str) -> None:
        raise AssertionError("scored")

    rows = [json.loads(line) for line in present.read_text().splitlines()]
    hidden = [{key: row[key] for key in ("qid", "query", "vid", "duration")} for row in rows]
    brief = [{**row, "relevant_windows": [[0, 4]]} for row in hidden]
    for kind, protocol, said, match in (
        ("hidden", "moments", hidden, "is not labelled"), ("hidden", "charades", hidden, "is not labelled"),
        ("brief", "qvhighlights", brief, "so the class 'middle' cannot be measured"),
    ):  # fmt: skip
        path = tmp_path / f"{kind}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in said))
        request = EvaluationRequest(checkpoints=(run,), cache=cache, annotations=path, protocol=protocol, device="cpu")
        with pytest.raises(AnnotationError, match=match):
            evaluate_runs(request, on_progress)


def test_wrong_requests_are_one_clear_error(run, cache, present, tmp_path):
    request = EvaluationRequest(checkpoints=(run,), cache=cache, annotations=present, device="cpu")
    with pytest.raises(CheckpointError, match="its head is for moments, which does not go with --protocol rows"):
        evaluate_runs(replace(request, protocol="rows"))
    with pytest.raises(ConfigError, match="choose one of rows, moments"):
        evaluate_runs(replace(request, protocol="charades-sta"))
    with pytest.raises(ConfigError, match="finds the spaces that it was trained on by itself"):
        evaluate_runs(replace(request, space="planted"))
    with pytest.raises(ConfigError, match="belong to --protocol retrieval"):
        evaluate_runs(replace(request, published_leaking_score=True))
    with pytest.raises(ConfigError, match="--cache"):
        evaluate_runs(replace(request, cache=None))
    far = tmp_path / "far.jsonl"
    write_annotations(far, [replace(asked_of("short", 0, 1), video="nowhere"), asked_of("long", 1, 3)])
    with pytest.raises(AnnotationError, match="nowhere"):
        evaluate_runs(replace(request, annotations=far))
    found = evaluate_runs(replace(request, annotations=far, allow_missing=True, num_bootstrap=0))
    assert found.missing == ("nowhere",)
    assert found.runs[0].report.counts["pairs"] == 1
