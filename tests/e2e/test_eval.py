"""`qle eval` on real runs and a real cache: table, JSON, several seeds, transfer, and one clear error for each wrong input."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from qle.cache.reader import open_cache
from qle.cli.app import app
from qle.config import config_to_dict
from qle.data.annotations import read_annotations, write_annotations
from qle.errors import AnnotationError, CacheMismatchError, CheckpointError, ConfigError
from qle.eval.floors import priors_of
from qle.eval.request import EvaluationRequest
from qle.eval.rows.report import evaluate
from qle.eval.run import evaluate_runs
from qle.heads import build_head
from qle.heads.base import TokenShapes
from qle.runs.load import load_run
from qle.runs.record import RunRecord, SpaceUse, save_run
from qle.segments.tracks import Localization
from qle.tasks.rows.scoring import RowScorer, score_annotations
from qle.text import TextRequest, build_text_encoder
from tests.planted import Planted, planted_cache
from tests.running import record_fields

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return planted_cache(tmp_path_factory.mktemp("planted"), num_train=2, num_val=3)


def save_seed(folder: Path, planted: Planted, seed: int) -> None:
    """A head that was never trained: what it finds is random, how it is measured is not."""
    space = open_cache(planted.cache).space()
    torch.manual_seed(seed)
    text = build_text_encoder(TextRequest(name="tiny", dim=16), CPU)
    streams = {name: stream.row_shape for name, stream in space.streams.items() if name in ("patch", "frame")}
    shapes = TokenShapes(streams=streams, text_dim=text.dim, sentence_dim=text.sentence_dim)
    settings = {"dim": 16, "num_layers": 1, "num_heads": 2, "temporal_layers": 1, "temporal_heads": 2}
    head = build_head("qle", settings, shapes)
    record = RunRecord(
        head="qle",
        head_config=config_to_dict(head.config),
        text=text.spec(),
        text_dim=text.dim,
        sentence_dim=text.sentence_dim,
        space=SpaceUse(
            name=space.record.name, hash=space.record.hash, hashed=space.record.hashed, streams=streams, rate_fps=None
        ),
        localization=Localization(temperature=0.5, threshold=0.4, low_threshold=0.3, smoothing_s=2.0),
        priors=priors_of(read_annotations(planted.train)).to_json(),
        settings={},
        selection={},
        versions={},
        created=datetime.now(UTC),
    )
    save_run(folder, record, head, text.train_state(), {})


@pytest.fixture(scope="module")
def seeds(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, as `qle train-heads --seeds 2` lays them out."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    for seed in range(2):
        save_seed(folder / f"seed-{seed}", planted, seed)
    return folder


def command(*arguments: object) -> None:
    app(["eval", *map(str, arguments), "--device", "cpu", "--quiet"], standalone_mode=False)


def test_the_report_is_that_of_the_scores(planted, seeds, capsys, tmp_path):
    run, out = seeds / "seed-0", tmp_path / "report.json"
    command("--checkpoint", run, "--cache", planted.cache, "--annotations", planted.val, "--json", "--out", out)
    printed = json.loads(capsys.readouterr().out)
    written = json.loads(out.read_text())
    loaded = load_run(run, CPU)
    scorer = RowScorer(loaded.head, loaded.text, device=CPU, rate_fps=None)
    scored = score_annotations(scorer, open_cache(planted.cache).space(), read_annotations(planted.val))
    expected = evaluate(scored, loaded.record.localization, priors=priors_of(read_annotations(planted.train)))
    assert printed["metrics"] == written["metrics"] == expected.to_json()["metrics"]
    assert "per_query" not in printed
    assert {row["query"] for row in written["per_query"]} == {one.query for one in read_annotations(planted.val)}
    settings = written["settings"]
    assert settings["localization"]["threshold"] == 0.4
    assert (settings["zero_shot"], settings["num_trained_videos"], settings["unseen_concepts"]) == (False, 0, 0)
    assert settings["weights"] == loaded.record.digests


def test_the_table_shows_floors_intervals_and_queries(planted, seeds, capsys):
    arguments = ("--checkpoint", seeds / "seed-0", "--cache", planted.cache, "--annotations", planted.val)
    command(*arguments, "--per-query")
    shown = capsys.readouterr().out
    for word in (
        "query blind",
        "position",
        "95 %",
        "frame auroc",
        "segment r1@0.5",
        "calibration ece",
        "the grasper opens",
    ):
        assert word in shown, word
    assert "9 (video, query) pairs, 3 of them absent, 3 videos" in shown


def test_seeds_have_a_mean_and_a_deviation(planted, seeds, capsys):
    command("--checkpoint", seeds, "--cache", planted.cache, "--annotations", planted.val, "--json", "--bootstrap", 0)
    found = json.loads(capsys.readouterr().out)
    values = [run["metrics"]["frame"]["auroc"]["value"] for run in found["runs"]]
    assert len(values) == 2
    assert values[0] != values[1]
    spread = found["spread"]["frame.auroc"]
    assert spread["mean"] == pytest.approx(sum(values) / 2)
    assert spread["deviation"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert [run["settings"]["checkpoint"] for run in found["runs"]] == [str(seeds / "seed-0"), str(seeds / "seed-1")]


def test_videos_that_were_trained_on_are_pointed_out(planted, seeds, capsys):
    command("--checkpoint", seeds / "seed-0", "--cache", planted.cache, "--annotations", planted.train)
    assert "2 of the 2 videos were trained on" in capsys.readouterr().err


def test_another_data_set_is_zero_shot(planted, seeds, tmp_path, capsys):
    """Other videos, and words that training never had."""
    other = tmp_path / "other.jsonl"
    write_annotations(other, [replace(one, query=f"somebody {one.query}") for one in read_annotations(planted.val)])
    command("--checkpoint", seeds / "seed-0", "--cache", planted.cache, "--annotations", other)
    assert "zero-shot" in capsys.readouterr().out


def test_moments_of_a_head_that_scores_rows_go_by_the_protocols_of_moments(planted, seeds, tmp_path):
    """The present queries alone: the file of predictions that `qle localize` writes knows no other."""
    present = tmp_path / "present.jsonl"
    write_annotations(present, [one for one in read_annotations(planted.val) if one.is_present])
    asked = replace(request(planted, seeds / "seed-0", present), num_bootstrap=0)
    moments = evaluate_runs(replace(asked, protocol="moments")).runs[0]
    charades = evaluate_runs(replace(asked, protocol="charades")).runs[0]
    rows = evaluate_runs(asked).runs[0]
    assert moments.novelty == charades.novelty == rows.novelty
    for level in (0.3, 0.5, 0.7):
        of_rows = rows.report.metric(f"segment.r1@{level}").value
        assert moments.report.metric(f"moments.r1@{level}").value == of_rows
        assert charades.report.metric(f"charades.r1@{level}").value == of_rows
    assert moments.report.metric("moments.miou").value == pytest.approx(
        rows.report.metric("segment.miou").value, abs=1e-3
    )
    with pytest.raises(AnnotationError, match="cannot be measured"):
        evaluate_runs(replace(asked, protocol="qvhighlights"))


def request(planted: Planted, run: Path, annotations: Path | None = None) -> EvaluationRequest:
    return EvaluationRequest(
        checkpoints=(run,), cache=planted.cache, annotations=annotations or planted.val, device="cpu"
    )


def test_wrong_annotations_are_one_clear_error(planted, seeds, tmp_path):
    run, path = seeds / "seed-0", tmp_path / "a.jsonl"
    path.write_text("")
    with pytest.raises(AnnotationError, match="holds no annotation"):
        evaluate_runs(request(planted, run, path))
    path.write_text(json.dumps({"qid": 1, "query": "a polyp", "vid": "val0", "duration": 24}))
    with pytest.raises(AnnotationError, match="relevant_windows"):
        evaluate_runs(request(planted, run, path))
    asked = read_annotations(planted.val)
    write_annotations(path, [*asked, replace(asked[0], qid="x", video="nowhere.mp4")])
    with pytest.raises(AnnotationError, match=r"nowhere\.mp4"):
        evaluate_runs(request(planted, run, path))
    found = evaluate_runs(replace(request(planted, run, path), allow_missing=True, num_bootstrap=0))
    assert found.missing == ("nowhere.mp4",)
    assert found.runs[0].report.counts["pairs"] == len(asked)


def test_a_wrong_run_or_space_is_one_clear_error(planted, seeds, tmp_path):
    with pytest.raises(CheckpointError, match="no such run folder"):
        evaluate_runs(request(planted, tmp_path / "nowhere"))
    other = Path(shutil.copytree(seeds / "seed-0", tmp_path / "other"))
    record = record_fields(other / "config.json")
    record["space"] |= {"hash": "cd" * 32, "hashed": {"backbone": {"id": "m2crl"}}}
    (other / "config.json").write_text(json.dumps(record))
    with pytest.raises(CacheMismatchError, match=r"backbone"):
        evaluate_runs(request(planted, other))
    with pytest.raises(ConfigError, match="--checkpoint"):
        EvaluationRequest(checkpoints=(), cache=planted.cache, annotations=planted.val)
    with pytest.raises(ConfigError, match="--bootstrap"):
        replace(request(planted, seeds), num_bootstrap=-1)
    with pytest.raises(ConfigError, match="--seed -1"):
        replace(request(planted, seeds), seed=-1)
