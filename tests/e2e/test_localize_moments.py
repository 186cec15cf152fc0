"""qle localize with runs whose heads answer with spans: over imported features, over extracted tokens, in every format."""

import csv
import json
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from qle.backbones import BackboneRequest
from qle.cache.reader import open_cache
from qle.cache.tools.interchange import ImportOptions, import_features
from qle.data.annotations import Annotation, write_annotations
from qle.data.streams.features import StreamSet
from qle.data.streams.recipe import StreamChoice
from qle.errors import AnnotationError, CacheMismatchError, CacheMissingError, CheckpointError, ConfigError, InputError
from qle.eval.request import EvaluationRequest
from qle.eval.run import evaluate_runs
from qle.eval.submissions.qvhighlights import evaluate_submission
from qle.extract.request import ExtractRequest, TokenOptions
from qle.extract.run import run as extract
from qle.extract.sampling import Sampling
from qle.heads import HEADS, build_head, head_class
from qle.heads.base import TokenShapes
from qle.localize.moment_files import FORMATS, render
from qle.localize.request import LocalizeRequest, LocalizeResult
from qle.localize.run import localize
from qle.runs.record import RunRecord, SpaceUse, save_run
from qle.segments.ranked import Ranking
from qle.tasks.moments.batches.config import MomentDataConfig
from qle.text import TextRequest, build_text_encoder
from qle.text.stored import write_stored_words
from qle.types import Query
from tests.planted_moments import planted_cache, planted_features, planted_streams
from tests.running import command, record_fields

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"dim": 16, "num_heads": 2, "hidden": 16, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 5}
EVENTS = {"short": [(10, 20, 0), (40, 45, 0)], "long": [(70, 80, 0), (200, 260, 1)], "empty": []}
LENGTHS = {"short": 60, "long": 300, "empty": 40}
RANKING = Ranking(presence_scale=1.0, threshold=0.5)
"""As planted heads need it: their logits are 4 and -8."""


def make_run(
    folder: Path, streams: StreamSet, head: str, settings: dict, *, ranking: Ranking = RANKING, text: str = "tiny"
) -> Path:
    """As training would leave it, with weights that nobody trained."""
    torch.manual_seed(0)
    encoder = build_text_encoder(TextRequest(name=text, dim=8 if text == "tiny" else None), "cpu")
    (stream,) = head_class(head).streams
    shapes = TokenShapes(
        streams={stream: (streams.recipe.dim,)}, text_dim=encoder.dim, sentence_dim=encoder.sentence_dim
    )
    built = build_head(head, settings, shapes)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    uses = [
        SpaceUse(
            name=space.record.name, hash=space.record.hash, hashed=space.record.hashed, rate_fps=None,
            streams={stream.name: stream.row_shape for stream in space.record.streams},
        )
        for space in streams.spaces
    ]  # fmt: skip
    record = RunRecord(
        head=head, head_config=settings, text=encoder.spec(), text_dim=encoder.dim, sentence_dim=encoder.sentence_dim,
        space=uses[0], more_spaces=tuple(uses[1:]), recipe=streams.recipe, ranking=ranking, priors=None, settings={},
        selection={}, versions={}, created=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    validation = {"metrics": {"moments": {"r1@0.5": {"value": 0.875}}}}
    save_run(folder, record, built, encoder.train_state(), {"metrics.json": {"validation": validation}})
    return folder


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two spaces, as with SlowFast and CLIP; the video `alone` is in the first one only."""
    root = tmp_path_factory.mktemp("imported")
    videos = {name: planted_features(LENGTHS[name], events) for name, events in EVENTS.items()}
    cache = planted_cache(root, videos | {"alone": planted_features(10, [])})
    (root / "other").mkdir()
    for name, length in LENGTHS.items():
        np.savez(root / "other" / f"{name}.npz", features=np.ones((length, 3), np.float32))
    import_features([root / "other"], cache, ImportOptions(name="other", clip_length_s=2.0))
    return cache


@pytest.fixture(scope="module")
def planted(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that finds what was planted."""
    streams = planted_streams(imported, "planted", "other+tef")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(HEADS, "planted", "tests.planted_moments:PlantedHead")
        return make_run(tmp_path_factory.mktemp("planted") / "run", streams, "planted", {"num_queries": 4})


@pytest.fixture(autouse=True)
def _planted_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEADS, "planted", "tests.planted_moments:PlantedHead")


def _ask(run: Path, *texts: str, **changes: object) -> LocalizeResult:
    fields: dict = {"checkpoint": run, "queries": tuple(Query(text=text) for text in texts)} | changes
    return localize(LocalizeRequest(**fields))


def _spans(result: LocalizeResult) -> dict[tuple[str, str], list[tuple[float, float]]]:
    return {
        (one.video, one.query): [(round(moment.start_s, 2), round(moment.end_s, 2)) for moment in one.moments]
        for one in result.predictions
    }


def test_moments_of_several_spaces_and_of_long_videos(planted: Path, imported: Path) -> None:
    result = _ask(planted, "event 0", "event 1", cache=imported)
    assert _spans(result) == {
        ("empty", "event 0"): [], ("empty", "event 1"): [], ("short", "event 1"): [],
        ("long", "event 0"): [(140, 160)], ("long", "event 1"): [(400, 520)],
        ("short", "event 0"): [(20, 40), (80, 90)],
    }  # fmt: skip
    assert list(result.failures) == ["alone"]
    assert re.match(r"not in other-\w+, which the run reads", result.failures["alone"])
    assert result.exit_code == 4
    assert result.provenance["backbone"] == ["imported:planted", "imported:other"]
    found = {(one.video, one.query): one for one in result.predictions}
    assert found["long", "event 0"].presence > 0.95
    absent = found["empty", "event 0"]
    assert absent.presence < 0.1
    assert absent.best is not None
    assert (result.provenance["space"][0].split("-")[0], result.provenance["head"]) == ("planted", "planted")
    assert [part["stream"] for part in result.provenance["features"]["parts"]] == ["frame", "frame"]


def test_raw_scores_of_an_imported_run_are_told(planted: Path, imported: Path, tmp_path: Path) -> None:
    """Once, whatever the number of videos; those of a run that has fitted them are not."""
    run = Path(shutil.copytree(planted, tmp_path / "run"))
    record = record_fields(run / "config.json")
    (run / "config.json").write_text(json.dumps(record | {"is_calibrated": False}))
    told = {
        folder: [note for note in _ask(folder, "event 0", cache=imported).notes if "imported run are raw" in note]
        for folder in (planted, run)
    }
    assert (len(told[planted]), len(told[run])) == (0, 1)


def test_a_video_with_a_stream_that_broke_off_fails_by_name(
    planted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = planted_cache(tmp_path, {name: planted_features(76, []) for name in ("whole", "near", "broken")})
    (tmp_path / "other").mkdir()
    for name, length in {"whole": 76, "near": 75, "broken": 10}.items():
        np.savez(tmp_path / "other" / f"{name}.npz", features=np.ones((length, 3), np.float32))
    import_features([tmp_path / "other"], cache, ImportOptions(name="other", clip_length_s=2.0))
    result = _ask(planted, "event 0", cache=cache)
    assert [one.video for one in result.predictions] == ["near", "whole"]
    assert re.search(r"10 clips \(20 s\) of it, planted-\w+ has 76 \(152 s\)", result.failures["broken"])
    assert result.notes == ["1 videos are a little longer in one stream than in another: trimmed to the shortest"]
    assert result.exit_code == 4
    rows = [Annotation(qid=name, video=name, query="event 0", windows=((2.0, 8.0),)) for name in ("near", "broken")]
    write_annotations(tmp_path / "rows.jsonl", rows)
    request = EvaluationRequest(
        checkpoints=(planted,), cache=cache, annotations=tmp_path / "rows.jsonl", num_bootstrap=2
    )
    with pytest.raises(AnnotationError, match=r"1 videos cannot be used.*'broken'.*10 clips"):
        evaluate_runs(request)
    evaluated = evaluate_runs(replace(request, allow_missing=True))
    assert (evaluated.missing, evaluated.runs[0].report.counts["videos"]) == (("broken",), 1)
    assert "1 videos are left out, their streams differ in length" in caplog.text


def test_evaluators_get_every_span(planted: Path, imported: Path) -> None:
    shown = _ask(planted, "event 0", cache=imported, video_ids=("short",)).predictions[0]
    everything = _ask(planted, "event 0", cache=imported, video_ids=("short",), keeps_all=True).predictions[0]
    assert (len(shown.moments), len(everything.moments)) == (2, 4)
    assert everything.moments[:2] == shown.moments
    assert everything.presence == shown.presence
    for cut in ({"top": 3}, {"min_score": everything.moments[2].score}):
        fewer = _ask(planted, "event 0", cache=imported, video_ids=("short",), keeps_all=True, **cut).predictions[0]
        assert fewer.moments == everything.moments[: 3 if "top" in cut else 4]


def test_submission_is_scored_as_it_was_found(planted: Path, imported: Path) -> None:
    queries = tuple(
        Query(text=f"event {event}", qid=str(qid), video=video)
        for qid, (video, event) in enumerate([("short", 0), ("long", 0), ("long", 1)])
    )
    result = _ask(planted, queries=queries, cache=imported, keeps_all=True)
    rows = [json.loads(line) for line in render("jsonl", result.predictions, names=result.names).splitlines()]
    truth = []
    for query, row in zip(queries, rows, strict=True):
        assert query.video is not None
        channel = int(query.text[-1])
        windows = [[2 * start, 2 * stop] for start, stop, number in EVENTS[query.video] if number == channel]
        inside = np.concatenate([np.arange(start // 2, stop // 2) for start, stop in windows])
        saliency = row["pred_saliency_scores"]
        assert len(saliency) == LENGTHS[query.video]
        assert min(np.array(saliency)[inside]) > 0.5 > max(np.delete(saliency, inside))
        truth.append(
            {
                "qid": row["qid"], "query": query.text, "vid": query.video, "duration": 2 * LENGTHS[query.video],
                "relevant_windows": windows, "relevant_clip_ids": inside.tolist(),
                "saliency_scores": [[4, 4, 4]] * len(inside),
            }
        )  # fmt: skip
    scores = evaluate_submission(truth, rows)
    assert scores["brief"]["MR-full-mAP"] == 100
    assert scores["brief"]["MR-full-R1@0.7"] == 100
    assert scores["brief"]["HL-min-VeryGood-mAP"] == 100


def test_every_format(planted: Path, imported: Path) -> None:
    result = _ask(planted, "event 0", cache=imported)
    texts = {
        kind: render(kind, result.predictions, provenance=result.provenance, with_tracks=kind == "json")
        for kind in FORMATS
        if kind != "vtt"
    }
    assert "2:20.0 - 2:40.0" in texts["table"]
    assert "absent" in texts["table"]
    rows = list(csv.DictReader(texts["csv"].splitlines()))
    assert [(row["video"], row["rank"]) for row in rows] == [
        ("empty", "0"), ("long", "1"), ("short", "1"), ("short", "2"),
    ]  # fmt: skip
    (long,) = [one for one in json.loads(texts["json"])["predictions"] if one["video"] == "long"]
    assert len(long["track"]["logit"]) == len(long["track"]["probability"]) == 300
    one = _ask(planted, "event 0", cache=imported, video_ids=("long",), is_one_video=True)
    assert "00:02:20.000 --> 00:02:40.000" in render("vtt", one.predictions)
    with pytest.raises(ConfigError, match="3 would be searched"):
        _ask(planted, "event 0", cache=imported, is_one_video=True)


def test_report_shows_moments_over_time_without_maps(planted: Path, imported: Path, tmp_path: Path) -> None:
    result = _ask(planted, "event 0", cache=imported, video_ids=("long", "short"), report=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "No frames: the features were imported" in page
    assert result.notes == ["No frames: the features were imported, so that the film is not known."]
    assert "2:20" in page
    assert "relevance map" not in page
    assert "threshold 0." not in page
    assert "r1@0.5" in page
    with pytest.raises(ConfigError, match="--heatmaps: head planted answers with spans"):
        _ask(planted, "event 0", cache=imported, heatmaps=tmp_path / "maps")


def test_what_is_missing_is_said_once_and_before_any_work(planted: Path, imported: Path, tmp_path: Path) -> None:
    with pytest.raises(CacheMissingError, match=r"'alone' is in planted-.*, but not in all spaces"):
        _ask(planted, "event 0", cache=imported, video_ids=("alone",))
    about = (Query(text="event 0", video="alone"), Query(text="event 0", video="short"))
    with pytest.raises(CacheMissingError, match="extract it, correct the name, or pass --allow-missing"):
        _ask(planted, queries=about, cache=imported)
    found = _ask(planted, queries=about, cache=imported, allow_missing=True)
    assert ([one.video for one in found.predictions], found.exit_code) == (["short"], 4)
    with pytest.raises(CacheMismatchError, match="was not extracted by qle") as caught:
        _ask(planted, "event 0", videos=("film.mp4",))
    assert "qle cache import" in str(caught.value)
    planted_cache(tmp_path, {"short": planted_features(10, [])})
    with pytest.raises(CacheMismatchError, match="has no space other-"):
        _ask(planted, "event 0", cache=tmp_path / "cache")


def test_damaged_video_costs_only_itself(planted: Path, imported: Path, tmp_path: Path) -> None:
    shutil.copytree(imported, tmp_path / "cache")
    other = open_cache(tmp_path / "cache").space("other").video("long")
    files = [
        path for path in other.folder.rglob("*") if path.is_file() and "frame" in str(path.relative_to(other.folder))
    ]
    max(files, key=lambda path: path.stat().st_size).unlink()
    result = _ask(planted, "event 0", cache=tmp_path / "cache")
    assert list(result.failures) == ["long", "alone"]
    assert {one.video for one in result.predictions} == {"empty", "short"}
    assert result.exit_code == 4


def test_stored_queries_are_the_only_ones(imported: Path, tmp_path: Path) -> None:
    words = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    write_stored_words(tmp_path / "words.safetensors", {"a polyp": (words, words[0])})
    streams = planted_streams(imported, "planted+tef")
    run = make_run(tmp_path / "run", streams, "moment_detr", SMALL, text=str(tmp_path / "words.safetensors"))
    assert len(_ask(run, "a polyp", cache=imported, video_ids=("short",)).predictions) == 1
    with pytest.raises(InputError, match="smoke"):
        _ask(run, "smoke", cache=imported)


def test_runs_that_find_no_moments_are_told_from_those_that_lack_something(imported: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", planted_streams(imported, "planted"), "tmass", {"dim": 8, "num_frames": 4})
    with pytest.raises(ConfigError, match="head tmass finds videos, not moments in them"):
        _ask(run, "a polyp", cache=imported)
    bare = make_run(tmp_path / "bare", planted_streams(imported, "planted+tef"), "moment_detr", SMALL)
    record = record_fields(bare / "config.json")
    for lacks in ("recipe", "ranking"):
        (bare / "config.json").write_text(json.dumps(record | {lacks: None}))
        if lacks == "recipe":
            with pytest.raises(CheckpointError, match="no head can be built"):
                _ask(bare, "a polyp", cache=imported)
        else:
            assert len(_ask(bare, "a polyp", cache=imported, video_ids=("short",)).predictions) == 1


# Extracted tokens: films may come in by themselves.


@pytest.fixture(scope="module")
def extracted(small_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two spaces of the small films: pooled vectors and a map, both of every frame."""
    cache = tmp_path_factory.mktemp("extracted") / "cache"
    for tokens in (TokenOptions(tokens="frame"), TokenOptions(grid=2)):
        request = ExtractRequest(
            inputs=(str(small_videos),), cache=cache, backbones=(BackboneRequest(name="tiny"),),
            sampling=Sampling(mode="native"), tokens=tokens, devices=("cpu",), num_workers=1, durability="none",
        )  # fmt: skip
        extract(request, lambda progress: None)
    return cache


@pytest.fixture(scope="module")
def joined(extracted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over both spaces, in clips of half a second and windows of four: the longest film needs several."""
    names = open_cache(extracted).spaces
    choices = [StreamChoice.parse(name) for name in (names[0], f"{names[1]}+tef")]
    config = MomentDataConfig(clip_s=0.5, window_clips=4)
    streams = StreamSet.open(open_cache(extracted), choices, config)
    return make_run(tmp_path_factory.mktemp("joined") / "run", streams, "qd_detr", SMALL, ranking=Ranking())


def _numbers(result: LocalizeResult) -> dict[str, np.ndarray]:
    found = {}
    for one in result.predictions:
        assert one.track is not None
        spans = [(moment.start_s, moment.end_s, moment.score) for moment in one.moments]
        found[one.video] = np.concatenate([np.ravel(spans), one.track.logit])
    return found


def test_film_gives_the_numbers_of_the_cached_video(
    joined: Path, extracted: Path, small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = _numbers(_ask(joined, "a polyp", cache=extracted))
    assert cached.keys() == {"a.mp4", "b.mp4", "below/a.mp4"}
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    passing = _numbers(_ask(joined, "a polyp", videos=(str(small_videos),)))
    assert list(tmp_path.iterdir()) == []
    kept = _numbers(_ask(joined, "a polyp", videos=(str(small_videos / "a.mp4"),), cache=tmp_path / "new"))
    assert passing.keys() == cached.keys()
    assert all(np.array_equal(passing[key], cached[key]) for key in cached)
    assert np.array_equal(kept["a.mp4"], cached["a.mp4"])
    assert len(open_cache(tmp_path / "new").spaces) == 2


def test_bad_film_is_named_and_weights_are_counted(joined: Path, small_videos: Path, tmp_path: Path) -> None:
    shutil.copy(small_videos / "b.mp4", tmp_path / "good.mp4")
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    result = _ask(joined, "a polyp", videos=(str(tmp_path),))
    assert ({one.video for one in result.predictions}, list(result.failures)) == ({"good.mp4"}, ["bad.mp4"])
    with pytest.raises(ConfigError, match="--weights is given 3 times, and the run reads 2 spaces"):
        _ask(joined, "a polyp", videos=(str(tmp_path),), weights=("a", "b", "c"))


def test_report_of_an_extracted_video_has_its_frames(joined: Path, extracted: Path, tmp_path: Path) -> None:
    result = _ask(
        joined, "a polyp", cache=extracted, video_ids=("a.mp4",), report=tmp_path / "report.html", num_frames=3
    )
    page = (tmp_path / "report.html").read_text()
    assert 1 <= page.count("data:image/jpeg") <= 3  # no more than the moments have clips
    assert "frame with relevance painted on" not in page
    assert not result.notes


def test_command_line(joined: Path, extracted: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.jsonl"
    done = command(
        "localize", "--checkpoint", joined, "--cache", extracted, "--query", "smoke <b>", "--device", "cpu", "-q",
        "--format", "jsonl", "--out", out,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"wrote {out}\n")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["vid"] for row in rows] == ["a.mp4", "b.mp4", "below/a.mp4"]
    assert all(0 <= start < end for row in rows for start, end, _ in row["pred_relevant_windows"])
