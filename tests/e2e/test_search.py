"""qle search and qle eval --protocol corpus: planted videos are found and measured, in every format; what is wrong is said."""

import csv
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import typer

from qle.cache.reader import open_cache
from qle.cache.tools.interchange import ImportOptions, import_features
from qle.cli.app import app
from qle.data.annotations import Annotation, read_annotations, write_annotations
from qle.errors import AnnotationError, CacheMismatchError, CheckpointError, ConfigError, InputError, QleError
from qle.segments.spans import iou
from tests.planted import planted_cache as planted_rows
from tests.planted_moments import planted_cache, planted_features
from tests.planted_search import DIM, ROOMS, THINGS, PlantedCorpus, planted_corpus, train_runs
from tests.running import command, record_fields

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> PlantedCorpus:
    found = planted_corpus(tmp_path_factory.mktemp("corpus"))
    train_runs(found)
    return found


@pytest.fixture(scope="module")
def known(corpus: PlantedCorpus) -> list[Annotation]:
    return [*read_annotations(corpus.train), *read_annotations(corpus.val)]


@pytest.fixture
def call(capsys: pytest.CaptureFixture):
    """Runs a command in this process: stdout, what it notes, exit code."""

    def run(line: list[str]) -> tuple[str, str, int]:
        capsys.readouterr()
        try:
            code = app(line, standalone_mode=False)
        except typer.Exit as ended:
            code = ended.exit_code
        said = capsys.readouterr()
        return said.out, said.err, code or 0

    return run


def is_right(known: list[Annotation], query: str, video: str, start_s: float, end_s: float) -> bool:
    windows = [one.windows for one in known if (one.query, one.video) == (query, video)]
    return bool(windows) and float(iou(np.array([[start_s, end_s]]), np.array(windows[0])).max()) >= 0.3


def test_a_search_finds_the_planted_moment(corpus, known, call):
    """Of 56 videos one in nine shows the room, and half of these the thing."""
    queries = [f"{thing} in the {room}" for thing in THINGS for room in ROOMS]
    asked = [query for query in queries if any(one.query == query for one in known)]
    out, noted, code = call(corpus.search(*(part for query in asked for part in ("--query", query)), "--json"))
    assert code == 0
    assert "are not fitted" in noted
    found = json.loads(out)
    assert found["num_videos"] == 56
    first = {}
    for one in found["predictions"]:
        for moment in one["moments"]:
            assert 0 <= moment["score"] <= 1
            if moment["rank"] == 1:
                first[one["query"]] = is_right(known, one["query"], one["video"], moment["start_s"], moment["end_s"])
    assert list(first) == asked
    assert np.mean(list(first.values())) > 0.6  # by chance about 0.02


def test_every_format_says_the_same(corpus, call, tmp_path):
    line = corpus.search("--query", "hook in the garden", "--query", "=bag in the attic", "--top", "4")
    values = json.loads(call([*line, "--format", "json"])[0])
    ranked = sorted(
        (one["query"], moment["rank"], one["video"], moment["start_s"], moment["end_s"], moment["score"], one["similarity"])
        for one in values["predictions"]
        for moment in one["moments"]
    )  # fmt: skip
    assert len(ranked) == 8
    out = tmp_path / "found.csv"
    assert call([*line, "--format", "csv", "--out", str(out)])[0] == ""
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert sorted(
        (row["query"].removeprefix("'"), int(row["rank"]), row["video"], *map(float, (row["start_s"], row["end_s"],
         row["score"], row["similarity"])))
        for row in rows
    ) == ranked  # fmt: skip
    assert {row["query"] for row in rows} == {"hook in the garden", "'=bag in the attic"}
    lines = [json.loads(row) for row in call([*line, "--format", "jsonl"])[0].splitlines()]
    assert (
        sorted(
            (one["query"], rank, one["vid"], *window, one["qle"]["similarity"])
            for one in lines
            for rank, window in zip(one["qle"]["ranks"], one["pred_relevant_windows"], strict=True)
        )
        == ranked
    )
    table = call([*line, "--format", "table"])[0].splitlines()
    assert len(table) == 2 + 8
    assert table[0].split()[:3] == ["query", "rank", "video"]
    assert values["provenance"]["fusion"] == {"lambda": 0.5, "tau": 0.01, "fitted": None}


def test_a_shortlist_and_fewer_videos_only_leave_out(corpus, call):
    line = corpus.search("--query", "clip in the studio", "--json", "--top", "50")
    whole = json.loads(call(line)[0])
    few = json.loads(call([*line, "--shortlist", "10", "--top-videos", "3"])[0])
    assert [one["video"] for one in few["videos"]] == [one["video"] for one in whole["videos"]][:3]
    for one, other in zip(few["videos"], whole["videos"], strict=False):
        assert one["similarity"] == pytest.approx(other["similarity"], abs=2e-6)


def test_moments_are_those_of_localize(corpus, call):
    """The score is another one; when, and how probable, is what the localizer says of the video alone."""
    found = json.loads(call(corpus.search("--query", "bag in the chapel", "--json", "--top", "60"))[0])["predictions"]
    line = ["localize", "--checkpoint", corpus.localizer, "--cache", corpus.cache, "--query", "bag in the chapel"]
    line += [part for one in found for part in ("--video-id", one["video"])]
    said = call([*map(str, line), "--format", "jsonl", "--device", "cpu", "-q"])[0].splitlines()
    alone = {one["vid"]: one for one in map(json.loads, said)}
    for one in found:
        spans = {tuple(span) for span in alone[one["video"]]["pred_relevant_windows"]}
        for moment in one["moments"]:
            own = (moment["start_s"], moment["end_s"], moment["probability"])
            assert any(np.allclose(own, span, atol=2e-3) for span in spans)
        assert one["presence"] == pytest.approx(alone[one["video"]]["pred_exist_score"], abs=1e-4)


def test_without_a_localizer_videos_are_ranked(corpus, call):
    line = corpus.search("--query", "bag in the cellar", "--top", "5")
    place = line.index("--localizer")
    line = [*line[:place], *line[place + 2 :]]
    found = json.loads(call([*line, "--json"])[0])
    assert found["predictions"] == []
    numbers = [int(one["video"].lstrip("trainvl")) for one in found["videos"]]
    assert [number % len(ROOMS) for number in numbers] == [ROOMS.index("cellar")] * 5
    assert [one["video_rank"] for one in found["videos"]] == [1, 2, 3, 4, 5]
    assert len(call(line)[0].splitlines()) == 2 + 5
    assert call([*line, "--format", "csv"])[0].splitlines()[0] == "video,qid,query,rank,similarity,video_rank,share"
    assert len(call([*line, "--format", "jsonl"])[0].splitlines()) == 5
    with pytest.raises(ConfigError, match="pass --localizer RUN as well"):
        app([*line, "--fusion", "x.json"], standalone_mode=False)


def test_videos_that_the_localizer_does_not_know_are_named(corpus, call, tmp_path):
    """A retriever's space may hold more: here a run on a space with one video less."""
    cache = tmp_path / "cache"
    shutil.copytree(corpus.cache, cache)
    (tmp_path / "more").mkdir()
    for name in ("val48", "val49"):
        np.savez(tmp_path / "more" / f"{name}.npz", features=np.ones((9, DIM), np.float32))
    import_features([tmp_path / "more"], cache, ImportOptions(name="more", clip_length_s=2.0))
    moved = replace(corpus, cache=cache, localizer=tmp_path / "rebound")
    shutil.copytree(corpus.localizer, moved.localizer)
    only = open_cache(cache).space("more").record
    # As if it had been trained on the small space: what is looked for is in no other.
    settings = record_fields(moved.localizer / "config.json")
    settings["space"]["hash"] = only.hash
    settings["recipe"]["parts"][0]["space"] = only.hash
    (moved.localizer / "config.json").write_text(json.dumps(settings))
    out, noted, code = call(moved.search("--query", "hook in the kitchen", "--json", "--top-videos", "7"))
    assert code == 4
    failures = json.loads(out)["failures"]
    assert all("not in more-" in reason for reason in failures.values())
    assert len(failures) >= 6
    assert f"failed {next(iter(failures))}: not in more-" in noted


@pytest.fixture(scope="module")
def measured(corpus: PlantedCorpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """The report and the fitted weights."""
    folder = tmp_path_factory.mktemp("measured")
    line = corpus.evaluation("--fit", folder / "fusion.json", "--out", folder / "report.json")
    app(line, standalone_mode=False)
    report = json.loads((folder / "report.json").read_text())
    return report, {"path": folder / "fusion.json", **json.loads((folder / "fusion.json").read_text())}


def test_the_corpus_protocol_beats_chance_at_every_stage(measured):
    report = measured[0]["metrics"]
    for name, factor in (("videos", "r@1"), ("oracle", "r1@0.5"), ("chain", "r1@0.5"), ("chain", "video_r@1")):
        metric = report[name][factor]
        assert metric["value"] > 2 * metric["floors"]["chance"], (name, factor)
        assert metric["interval"][0] > metric["floors"]["chance"]
    assert report["videos"]["r@1"]["floors"]["chance"] == pytest.approx(1 / 8)
    assert report["videos"]["medr"]["value"] < report["videos"]["medr"]["floors"]["chance"]
    assert report["shortlist"]["top1_in_8"]["value"] == 1
    # With all videos looked into, the chain cannot find more than is found in the right video.
    assert report["chain"]["r100@0.5"]["value"] >= report["oracle"]["r5@0.5"]["value"]
    assert report["chain"]["r1@0.5"]["value"] >= report["chain_moment_only"]["r1@0.5"]["value"]
    assert report["chain"]["r1@0.5"]["value"] >= report["chain_video_only"]["r1@0.5"]["value"]
    assert measured[0]["settings"]["fitted_on_what_is_measured"]


def test_fitted_weights_are_used_and_belong_to_their_runs(corpus, measured, call, tmp_path):
    fusion = measured[1]
    assert fusion["fitted"]["queries"] == 16
    assert fusion["fitted"]["r1@0.5"][f"{fusion['lambda']:g}"] == max(fusion["fitted"]["r1@0.5"].values())
    line = corpus.search("--query", "bag in the office", "--fusion", fusion["path"])
    found = json.loads(call([*line, "--json"])[0])
    assert found["provenance"]["fusion"]["lambda"] == fusion["lambda"]
    assert "not fitted" not in call(line)[1]
    report = json.loads(call(corpus.evaluation("--fusion", fusion["path"], "--json", "--bootstrap", "0"))[0])
    chain = measured[0]["metrics"]["chain"]
    assert {name: one["value"] for name, one in report["metrics"]["chain"].items()} == {
        name: one["value"] for name, one in chain.items()
    }
    assert not report["settings"]["fitted_on_what_is_measured"]
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**{k: v for k, v in fusion.items() if k != "path"}, "fitted": {"runs": {}}}))
    with pytest.raises(ConfigError, match="fitted for another retriever than this run\nfit them"):
        app(corpus.search("--query", "x", "--fusion", other), standalone_mode=False)


def test_a_short_shortlist_is_measured_against_exhaustive_scoring(corpus, call):
    line = corpus.evaluation("--shortlist", "3", "--top-videos", "2", "--bootstrap", "0", "--json")
    report = json.loads(call(line)[0])["metrics"]
    assert 3 / 8 - 1e-9 <= report["shortlist"]["top20_in_3"]["value"] <= 3 / 8 + 1e-9  # of all eight
    assert report["shortlist"]["top1_in_3"]["value"] > 0.5
    assert report["shortlist"]["exhaustive_r@1"]["value"] >= report["videos"]["r@1"]["value"]


def test_what_is_wrong_is_said_in_one_line(corpus, tmp_path):
    def fails(error: type[QleError], match: str, line: list[str]) -> None:
        with pytest.raises(error, match=match) as found:
            app(line, standalone_mode=False)
        assert len(str(found.value).splitlines()) <= 3

    ask = ("--query", "hook")
    swapped = replace(corpus, retriever=corpus.localizer)
    fails(CheckpointError, "head qd_detr ranks no videos\ntrain one that does", swapped.search(*ask))
    swapped = replace(corpus, localizer=corpus.retriever)
    fails(ConfigError, "--localizer .*head tmass finds videos, not moments", swapped.search(*ask))
    elsewhere = replace(corpus, cache=planted_cache(tmp_path, {"a": planted_features(9, [])}))
    fails(CacheMismatchError, "has no space planted|is another", elsewhere.search(*ask))
    fails(ConfigError, "shorter than --top-videos", corpus.search(*ask, "--shortlist", 5))
    fails(ConfigError, "--top 0: expected 1 or more", corpus.search(*ask, "--top", 0))
    fails(ConfigError, "nothing to look for", corpus.search())
    fails(InputError, "is empty|no words|empty", corpus.search("--query", " "))
    fails(ConfigError, "--format vtt: choose one of", corpus.search(*ask, "--format", "vtt"))
    fails(InputError, "lies in .* a run or cache", corpus.search(*ask, "--out", corpus.cache / "x.json"))
    fails(ConfigError, "pass one of the two", corpus.evaluation("--fit", "a.json", "--fusion", "b.json"))
    line = corpus.evaluation()
    place = line.index("--retriever")
    fails(ConfigError, "pass --retriever RUN", [*line[:place], *line[place + 2 :]])
    moments = ["moments" if word == "corpus" else word for word in line]
    fails(ConfigError, "belong to --protocol corpus", moments)
    rows = [one for one in read_annotations(corpus.val) if one.video == "val48"]
    write_annotations(tmp_path / "one.jsonl", rows)
    fails(AnnotationError, "no corpus to search", replace(corpus, val=tmp_path / "one.jsonl").evaluation())


def test_a_head_that_scores_rows_localizes_too(tmp_path, call):
    """The mean of the patch map is what the retriever sees; a track always has a best guess."""
    made = planted_rows(tmp_path, num_train=4, num_val=3)
    rows = PlantedCorpus(
        cache=made.cache, train=made.train, val=made.val, retriever=tmp_path / "tmass", localizer=tmp_path / "qle"
    )
    short = ("train.steps=2", "train.eval_every=2")
    call(["train-heads", *made.arguments(rows.localizer, *short), "--track", "none", "-q"])
    line = ["train-heads", "--head", "tmass", "--stream", "planted:patch", "--device", "cpu", "--track", "none", "-q"]
    named = ("--cache", made.cache, "--annotations", made.train, "--val", made.val, "--out", rows.retriever)
    small = ("head.dim=16", "head.num_frames=4", "head.trials=2", "text.dim=8", "data.pairs_per_batch=2", *short)
    call([*line, *map(str, named), *(part for setting in small for part in ("--set", setting))])
    found = json.loads(call(rows.search("--query", "the grasper opens", "--json", "--top", "50"))[0])
    assert {one["video"] for one in found["predictions"]} == set(open_cache(made.cache).space().keys())
    report = json.loads(call(rows.evaluation("--json", "--bootstrap", "0"))[0])
    assert report["counts"]["videos"] == 3
    assert report["metrics"]["chain"]["video_r@100"]["value"] == 1
    assert report["counts"]["queries"] == 3
    index = open_cache(made.cache).space().path / "pooled-patch-4"
    assert index.is_dir()


def test_the_command_in_a_process_of_its_own(corpus):
    done = command(*corpus.search("--query", "needle in the garage", "--top", "2"))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 + 2
