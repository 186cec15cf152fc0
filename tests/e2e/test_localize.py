"""qle localize over real videos, a real cache and a real run folder (whose head has random weights)."""

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qle.backbones import BackboneRequest
from qle.cache.reader import Space, open_cache
from qle.cache.tools.convert import convert
from qle.errors import CacheMismatchError, CacheMissingError, CheckpointError, ConfigError, InputError
from qle.explain.evidence import explain
from qle.extract.request import ExtractRequest, TokenOptions
from qle.extract.run import run as extract
from qle.extract.sampling import Sampling
from qle.extract.source_frames import frames_of
from qle.heads import build_head
from qle.heads.base import TokenShapes
from qle.heads.qle.head import QleHead
from qle.localize import pictures
from qle.localize.moment_files import FORMATS, render
from qle.localize.pictures import Illustrator
from qle.localize.request import LocalizeRequest, LocalizeResult
from qle.localize.run import localize
from qle.runs.load import load_run
from qle.runs.record import RunRecord, SpaceUse, save_run
from qle.runs.videos import CachedVideo
from qle.segments.tracks import Localization
from qle.tasks.answering import AnsweringOptions, answerer_of
from qle.text import TextRequest, build_text_encoder
from qle.types import Query
from tests.running import command, here, record_fields

SETTINGS = {"dim": 16, "num_layers": 1, "num_heads": 2, "temporal_heads": 2, "temporal_layers": 1, "reach_rows": 4,
            "presence_weight": 0.0}  # fmt: skip
QUERIES = (Query(text="a green polyp"), Query(text="smoke"))


def make_run(folder: Path, space: Space, **constants: float) -> Path:
    """A run as training would leave it, with weights that nobody trained."""
    torch.manual_seed(0)
    text = build_text_encoder(TextRequest(name="tiny", dim=8), "cpu")
    streams = {stream.name: stream.row_shape for stream in space.record.streams if stream.name != "scale"}
    head = build_head("qle", SETTINGS, TokenShapes(streams=streams, text_dim=8, sentence_dim=8))
    for parameter in head.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
    use = SpaceUse(
        name=space.record.name, hash=space.record.hash, hashed=space.record.hashed, streams=streams, rate_fps=None,
        backbone_source=space.record.recorded.get("source"),
    )  # fmt: skip
    record = RunRecord(
        head="qle", head_config=SETTINGS, text=text.spec(), text_dim=8, sentence_dim=8, space=use,
        localization=Localization(**constants), priors=None, settings={}, selection={}, versions={},
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    validation = {"metrics": {"frame": {"auroc": {"value": 0.875}}, "calibration": {"ece": {"value": None}}}}
    save_run(folder, record, head, text.train_state(), {"metrics.json": {"validation": validation}})
    return folder


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cached(small_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the small videos: patches pooled to 4x4, every frame a row."""
    cache = tmp_path_factory.mktemp("localize") / "cache"
    request = ExtractRequest(
        inputs=(str(small_videos),), cache=cache, backbones=(BackboneRequest(name="tiny"),),
        sampling=Sampling(mode="native"), tokens=TokenOptions(grid=4), devices=("cpu",), num_workers=1, durability="none",
    )  # fmt: skip
    extract(request, lambda progress: None)
    return cache


@pytest.fixture(scope="module")
def run(cached: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of all rows are above its threshold or so: moments and gaps."""
    return make_run(tmp_path_factory.mktemp("run") / "run", open_cache(cached).space(), bias=0.0, threshold=0.5)


def _tracks(result: LocalizeResult) -> dict[tuple[str, str], np.ndarray]:
    found = {}
    for one in result.predictions:
        assert one.track is not None
        found[one.video, one.query] = one.track.logit
    return found


def _ask(run: Path, **changes: object) -> LocalizeResult:
    return localize(LocalizeRequest(**({"checkpoint": run, "queries": QUERIES} | changes)))  # type: ignore[arg-type]


def test_all_videos_of_the_space_or_those_that_are_named(run: Path, cached: Path) -> None:
    everything = _ask(run, cache=cached)
    assert [(one.query, one.video) for one in everything.predictions] == [
        (query.text, key) for query in QUERIES for key in ("a.mp4", "b.mp4", "below/a.mp4")
    ]
    one = _ask(run, cache=cached, video_ids=("b",))
    assert {prediction.video for prediction in one.predictions} == {"b.mp4"}
    mixed = _ask(
        run, cache=cached, queries=(Query(text="smoke", qid="9", video="b"), Query(text="fire", video="below/a"))
    )
    assert [(p.qid, p.query, p.video) for p in mixed.predictions] == [
        ("9", "smoke", "b.mp4"),
        (None, "fire", "below/a.mp4"),
    ]
    assert mixed.names == {"b.mp4": "b", "below/a.mp4": "below/a"}
    for prediction in everything.predictions:
        assert 0 <= prediction.presence <= 1
        for moment in prediction.moments:
            assert 0 <= moment.start_s < moment.end_s <= prediction.duration_s + 1e-9
            assert 0.5 <= moment.score <= 1


def test_uncached_equals_cached_whatever_the_way(
    run: Path, cached: Path, small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _tracks(_ask(run, cache=cached))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    through_temp = _tracks(_ask(run, videos=(str(small_videos),)))
    assert list((tmp_path / "temp").iterdir()) == []
    into_new_cache = _tracks(_ask(run, videos=(str(small_videos),), cache=tmp_path / "new"))
    for found in (through_temp, into_new_cache):
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[pair], expected[pair]) for pair in expected)
    kept = open_cache(tmp_path / "new").space()
    assert kept.path.name == open_cache(cached).space().path.name
    assert len(kept) == 3


def test_film_that_is_cached_is_not_extracted_again(
    run: Path, cached: Path, small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not under another name, not from another folder; and then no backbone is loaded."""
    moved = tmp_path / "renamed.mp4"
    shutil.copy(small_videos / "below" / "a.mp4", moved)

    def refuse(*args: object, **named: object) -> None:
        raise AssertionError("a backbone was built")

    monkeypatch.setattr("qle.localize.uncached.recipe_of", refuse)
    before = sorted(cached.rglob("_COMMIT.json"))
    result = _ask(run, videos=(str(moved), str(small_videos / "b.mp4")), cache=cached)
    assert [one.video for one in result.predictions[:2]] == ["b.mp4", "below/a.mp4"]
    assert sorted(cached.rglob("_COMMIT.json")) == before


@pytest.mark.parametrize("change", [{"grid": 3}, {"dtype": "int8"}, {"dtype": "bfloat16", "grid": 2}])
def test_space_that_was_converted_is_made_again_for_a_new_film(
    change: dict, cached: Path, small_videos: Path, tmp_path: Path
) -> None:
    convert(cached, target=tmp_path / "small", **change)
    run = make_run(tmp_path / "run", open_cache(tmp_path / "small").space())
    expected = _tracks(_ask(run, cache=tmp_path / "small", video_ids=("below/a",)))
    found = _tracks(_ask(run, videos=(str(small_videos / "below" / "a.mp4"),)))
    for query in QUERIES:
        assert np.array_equal(found["a.mp4", query.text], expected["below/a.mp4", query.text])


def test_bad_film_among_good_ones_costs_only_itself(run: Path, small_videos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    shutil.copy(small_videos / "b.mp4", folder / "good.mp4")
    (folder / "bad.mp4").write_bytes(b"no film")
    result = _ask(run, videos=(str(folder),))
    assert {one.video for one in result.predictions} == {"good.mp4"}
    assert list(result.failures) == ["bad.mp4"]
    assert result.exit_code == 4
    with pytest.raises(Exception, match=r"bad\.mp4"):
        _ask(run, videos=(str(folder / "bad.mp4"),))


def test_mistakes_are_refused_before_any_work(run: Path, cached: Path, small_videos: Path, tmp_path: Path) -> None:
    film = (str(small_videos / "b.mp4"),)
    with pytest.raises(InputError, match="too long"):
        _ask(run, queries=(Query(text="word " * 1000),), videos=film)
    with pytest.raises(InputError, match="empty query"):
        _ask(run, queries=(Query(text="   "),), videos=film)
    with pytest.raises(CacheMissingError, match=r"no video 'c' .*nearest|no video 'c'"):
        _ask(run, cache=cached, video_ids=("c",))
    with pytest.raises(InputError, match="'c', which is none of them"):
        _ask(run, queries=(Query(text="smoke", video="c"),), videos=film)
    with pytest.raises(CheckpointError, match="no such run folder"):
        _ask(tmp_path / "nothing", cache=cached)
    for wrong in (
        {},
        {"videos": film, "video_ids": ("b",)},
        {"cache": cached, "top": 0},
        {"cache": cached, "min_score": 2},
        {"cache": cached, "report": tmp_path},
        {"cache": cached, "heatmaps": run / "config.json"},
    ):
        with pytest.raises(ConfigError):
            _ask(run, **wrong)
    with pytest.raises(ConfigError, match="belong to one video, and 3 would be searched"):
        _ask(run, cache=cached, is_one_video=True)
    with pytest.raises(ConfigError, match="not among the --video-id"):
        _ask(run, cache=cached, video_ids=("b",), queries=(Query(text="smoke", video="a.mp4"),))


def test_queries_about_missing_videos_are_named_or_skipped(run: Path, cached: Path, small_videos: Path) -> None:
    queries = (Query(text="smoke", qid="7", video="gone", where="q.jsonl:1"), Query(text="fire", video="b.mp4"))
    with pytest.raises(CacheMissingError, match=r"q.jsonl:1: query 'smoke' \(qid 7\)"):
        _ask(run, cache=cached, queries=queries)
    for where in ({"cache": cached}, {"videos": (str(small_videos / "b.mp4"),)}):
        found = _ask(run, queries=queries, allow_missing=True, **where)
        assert ([one.query for one in found.predictions], found.exit_code, len(found.skipped)) == (["fire"], 4, 1)
        assert "skipped 1 queries" in found.notes[0]
        with pytest.raises(CacheMissingError, match="all 1 queries"):
            _ask(run, queries=queries[:1], allow_missing=True, **where)


def test_rows_without_usable_tokens_are_told(run: Path, cached: Path, tmp_path: Path) -> None:
    shutil.copytree(cached, tmp_path / "cache")
    video = open_cache(tmp_path / "cache").space().video("b.mp4")
    files = [
        path for path in video.folder.rglob("*") if path.is_file() and "patch" in str(path.relative_to(video.folder))
    ]
    data = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    content[:2] = np.float16(np.nan).tobytes()
    data.write_bytes(content)
    notes = _ask(run, cache=tmp_path / "cache", video_ids=("b",)).notes
    assert notes == [f"1 of {video.num_rows} rows of b.mp4 are not usable (qle cache verify --deep)"]
    assert not _ask(run, cache=cached, video_ids=("b",)).notes


def test_other_space_is_refused_with_what_differs(run: Path, small_videos: Path, tmp_path: Path) -> None:
    request = ExtractRequest(
        inputs=(str(small_videos / "b.mp4"),), cache=tmp_path / "other", backbones=(BackboneRequest(name="tiny"),),
        sampling=Sampling(mode="fps", fps=5), tokens=TokenOptions(grid=4), devices=("cpu",), num_workers=1, durability="none",
    )  # fmt: skip
    extract(request, lambda progress: None)
    with pytest.raises(CacheMismatchError, match=r"sampling\.fps"):
        _ask(run, cache=tmp_path / "other")
    # A film for that cache is another matter: it comes into the space of the run, beside the other one.
    result = _ask(run, cache=tmp_path / "other", videos=(str(small_videos / "b.mp4"),))
    assert len(result.predictions) == 2
    assert len(open_cache(tmp_path / "other").spaces) == 2


def test_run_whose_backbone_is_not_what_it_was(run: Path, small_videos: Path, tmp_path: Path) -> None:
    """Only a forged record can say so for the built-in one; an m2crl file of other weights ends in the same message."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    record = record_fields(copy / "config.json")
    record["space"]["hashed"]["backbone"]["weights"] = "0" * 64
    (copy / "config.json").write_text(json.dumps(record))
    with pytest.raises(CacheMismatchError, match=r"backbone\.weights: run '000.*\n.*--weights"):
        _ask(copy, videos=(str(small_videos / "b.mp4"),))
    record["space"]["hashed"]["backbone"]["id"] = "m2crl"
    (copy / "config.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"pass its file or folder by --weights\n.*digest 0000"):
        _ask(copy, videos=(str(small_videos / "b.mp4"),))


def test_run_whose_space_is_described_by_half(run: Path, small_videos: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    record = record_fields(copy / "config.json")
    del record["space"]["hashed"]["preprocess"]["height"]
    (copy / "config.json").write_text(json.dumps(record))
    with pytest.raises(CacheMismatchError, match=r"description of the space .* damaged"):
        _ask(copy, videos=(str(small_videos / "b.mp4"),))


def test_terminated_extraction_leaves_no_temporary_cache(run: Path, small_videos: Path, tmp_path: Path) -> None:
    """As a batch system ends a job: from within, when the temporary cache is there."""
    watcher = (
        "import os, pathlib, signal, tempfile\n"
        "from qle.cli import app, localize\n"
        "class Progress(localize.StepProgress):\n"
        "    def update(self, done, total, what):\n"
        "        if what == 'extracting':\n"
        "            print(*pathlib.Path(tempfile.gettempdir()).glob('qle-*'))\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "localize.StepProgress = Progress\n"
        "if __name__ == '__main__': app.main()\n"
    )
    ask = ("localize", "--checkpoint", run, "--video", small_videos / "b.mp4", "--query", "smoke", "--device", "cpu")
    ended = subprocess.run(
        [sys.executable, "-c", watcher, *map(str, ask)], env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ended.returncode in (130, -signal.SIGINT), ended.stderr  # the second: Python, for who looks at the signal
    assert "Traceback" not in ended.stderr
    assert "qle-" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_pictures_and_report(run: Path, cached: Path, tmp_path: Path) -> None:
    result = _ask(
        run, cache=cached, video_ids=("a.mp4",), heatmaps=tmp_path / "maps", report=tmp_path / "out" / "report.html",
        num_frames=3,
    )  # fmt: skip
    assert 2 <= len(result.pictures) <= 6
    for path in result.pictures:
        with Image.open(path) as picture:
            assert picture.size == (96, 64)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "a green polyp" in page
    assert "data:image/jpeg" in page
    assert "frame: AUROC (1 is best)" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_video_is_read_and_decoded_once_for_all_that_a_page_shows(
    run: Path, cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores, maps and attribution each read the tokens of a video again, and its film waited for all of them."""
    read: list[int] = []
    decoded: list[Path] = []

    def reading(head: QleHead, *given: object, **named: object) -> object:
        read.append(1)
        return read_rows(head, *given, **named)  # type: ignore[arg-type]

    def fetching(path: Path, *given: object, **named: object) -> object:
        decoded.append(path)
        return frames_of(path, *given, **named)  # type: ignore[arg-type]

    read_rows = QleHead.read_rows
    monkeypatch.setattr(QleHead, "read_rows", reading)
    monkeypatch.setattr(pictures, "frames_of", fetching)
    result = _ask(run, cache=cached, report=tmp_path / "report.html")
    videos = {one.video for one in result.predictions}
    assert len(videos) > 2
    assert len(result.predictions) == 2 * len(videos)
    assert len(read) == len(videos) + 1  # one row shows, once, how wide the head is
    assert len(decoded) == len(set(decoded)) == len(videos)


def test_pictures_of_many_videos_are_not_kept(run: Path, cached: Path, tmp_path: Path) -> None:
    """The page of a thousand videos would hold six thousand pictures in memory; what stays is their encoded form."""
    answerer = answerer_of(
        load_run(run, torch.device("cpu")), AnsweringOptions(device=torch.device("cpu"), explains=True)
    )
    videos = [CachedVideo(key=key, spaces=(open_cache(cached).space(),)) for key in ("a.mp4", "b.mp4")]
    with Illustrator(heatmaps=tmp_path / "maps", has_page=True) as illustrator:
        for video in videos:
            predictions = answerer.predictions(video, QUERIES)
            illustrator.add(explain(answerer, video, predictions, num_frames=2), video.video, None)
        made = illustrator.finish()
    assert [one.prediction.video for video in made for one in video.explained] == ["a.mp4", "a.mp4", "b.mp4", "b.mp4"]
    frames = [frame for video in made for one in video.explained for frame in one.frames]
    assert frames
    assert all(frame.frame is None and frame.encoded is not None for frame in frames)
    assert all(path.is_file() for video in made for files in video.files for path in files)
    assert sum(len(files) for video in made for files in video.files) == len(frames)


def test_a_disk_that_refuses_pictures_ends_the_command(run: Path, cached: Path, tmp_path: Path) -> None:
    """The pictures are made in other threads: their error is the command's all the same."""
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "a.mp4__smoke").write_text("a file where a folder should be")
    with pytest.raises(InputError, match="pictures cannot be written there"):
        _ask(run, cache=cached, video_ids=("a.mp4",), heatmaps=tmp_path / "maps")


def test_source_that_is_gone_costs_the_pictures_only(run: Path, small_videos: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    shutil.copy(small_videos / "b.mp4", film)
    _ask(run, videos=(str(film),), cache=tmp_path / "cache")
    film.unlink()
    result = _ask(run, cache=tmp_path / "cache", heatmaps=tmp_path / "maps", report=tmp_path / "report.html")
    assert len(result.predictions) == 2
    assert ["Maps alone" in note for note in result.notes] == [True]
    assert "Maps alone" in (tmp_path / "report.html").read_text()
    assert result.pictures
    # The cache remembers the old place, but the user says where the film is now.
    moved = tmp_path / "moved.mp4"
    shutil.copy(small_videos / "b.mp4", moved)
    again = _ask(run, videos=(str(moved),), cache=tmp_path / "cache", heatmaps=tmp_path / "maps")
    assert again.notes == []


def test_top_and_least_score_cut_what_is_given(run: Path, cached: Path) -> None:
    whole = _ask(run, cache=cached, video_ids=("a.mp4",)).predictions[0]
    assert len(whole.moments) > 1
    assert [one.score for one in whole.moments] == sorted((one.score for one in whole.moments), reverse=True)
    least = whole.moments[0].score
    for cut in ({"top": 1}, {"min_score": least}):
        found = _ask(run, cache=cached, video_ids=("a.mp4",), **cut).predictions[0]
        assert found.moments == whole.moments[:1]
        assert found.presence == whole.presence


def test_command_line(run: Path, cached: Path) -> None:
    ask = ("localize", "--checkpoint", run, "--cache", cached, "--video-id", "a.mp4", "--query", "smoke <b>", "-q")
    shown = command(*ask, "--json", "--tracks", "--top", "1")
    assert (shown.returncode, shown.stderr) == (0, "")
    answer = json.loads(shown.stdout)
    (found,) = answer["predictions"]
    assert (found["query"], found["video"], len(found["track"]["logit"])) == ("smoke <b>", "a.mp4", 41)
    assert found["presence"] + found["absent"] == pytest.approx(1, abs=1e-5)
    assert answer["provenance"]["space"].startswith("tiny-native")
    wrong = here(*ask, "--format", "xml")
    assert wrong.returncode == 2
    assert "--format xml: choose one of table, json, jsonl, csv, vtt" in wrong.stderr


def test_equal_questions_give_equal_files(run: Path, cached: Path) -> None:
    for kind in FORMATS:
        texts = set()
        for _ in range(2):
            result = _ask(run, cache=cached, video_ids=("a.mp4",))
            texts.add(render(kind, result.predictions, provenance=result.provenance, with_tracks=kind == "json"))
        assert len(texts) == 1
