"""`qle eval --predictions`: a file and annotations, no run, no cache, no torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qle.cli.app import app
from qle.errors import AnnotationError, ConfigError, InputError
from qle.eval.submissions.qvhighlights import differing
from tests.golden_sets import ROUNDING, all_evaluations, folder

TRUTH = [
    {
        "qid": 1, "query": "a", "vid": "a", "duration": 150, "relevant_windows": [[0, 8], [20, 44], [60, 148]],
        "relevant_clip_ids": [0, 74], "saliency_scores": [[4, 4, 4], [3, 3, 3]],
    },
    {
        "qid": 2, "query": "b", "vid": "b", "duration": 150, "relevant_windows": [[0, 20]],
        "relevant_clip_ids": [0], "saliency_scores": [[4, 4, 4]],
    },
]  # fmt: skip
SAID = [
    {"qid": 1, "pred_relevant_windows": [[60, 140, 0.9], [0, 10, 0.5]], "pred_saliency_scores": [-1.0] + [-2.0] * 73},
    {"qid": 2, "pred_relevant_windows": [[0, 18, 0.9]], "pred_saliency_scores": [1.0] + [-2.0] * 74},
]


def write(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "truth.jsonl", TRUTH), write(tmp_path / "said.jsonl", SAID)


def command(truth: Path, said: Path, *arguments: object) -> None:
    app(["eval", "--annotations", str(truth), "--predictions", str(said), *map(str, arguments)], standalone_mode=False)


def test_the_official_numbers_of_the_largest_case(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cases = [case for case in all_evaluations() if "error" not in case.expected]
    if not cases:
        pytest.skip(f"no case of the official program of QVHighlights at {folder()}")
    case = max(cases, key=lambda case: len(case.said))
    truth, said = write(tmp_path / "truth.jsonl", case.truth), write(tmp_path / "said.jsonl", case.said)
    extra = () if case.match_number else ("--allow-missing",)
    command(truth, said, "--protocol", "qvhighlights", "--published", "--json", *extra)
    differences = differing(case.expected, json.loads(capsys.readouterr().out))
    assert not {name: both for name, both in differences.items() if abs(both[0] - both[1]) > ROUNDING}


def test_the_table_shows_floors_and_what_is_wrong_in_official_numbers(files, tmp_path, capsys) -> None:
    out = tmp_path / "report.json"
    command(*files, "--protocol", "qvhighlights", "--out", out)
    shown = capsys.readouterr()
    for words in ("official MR-full-mAP", "without_faults HL-min-Fair-mAP", "best span", "whole video", "uniform"):
        assert words in shown.out, words
    assert "1 queries have fewer saliency scores than clips" in shown.err
    report = json.loads(out.read_text())
    assert report["official"]["brief"]["MR-full-mAP"] == report["metrics"]["official"]["MR-full-mAP"]["value"]
    command(*files, "--protocol", "charades", "--bootstrap", 0)
    assert "charades r1@0.5" in capsys.readouterr().out
    command(*files)
    shown = capsys.readouterr().out
    assert "moments middle_map" in shown
    assert "highlights very_good_hit1" in shown


def test_lines_of_queries_that_a_protocol_does_not_have_are_told(files, capsys) -> None:
    command(*files, "--per-query", "--json")
    shown = capsys.readouterr()
    assert json.loads(shown.out)["metrics"]["moments"]
    assert "--per-query: the protocol moments has no lines of queries" in shown.err


def test_charades_takes_the_published_annotation_file(shared_annotations: Path, tmp_path: Path, capsys) -> None:
    source = shared_annotations / "charades_sta_test.txt"
    count = sum(bool(line.strip()) for line in source.read_text().splitlines())
    said = write(tmp_path / "said.jsonl", [{"qid": k, "pred_relevant_windows": [[0, 10, 1]]} for k in range(count)])
    command(source, said, "--protocol", "charades", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["counts"]["pairs"] == count
    assert 0 < found["metrics"]["charades"]["miou"]["value"] < 1


def test_missing_queries_are_an_error_or_misses(files, tmp_path, capsys) -> None:
    truth, _ = files
    fewer = write(tmp_path / "fewer.jsonl", SAID[:1])
    for protocol in ("moments", "charades", "qvhighlights"):
        with pytest.raises(AnnotationError, match="have no prediction"):
            command(truth, fewer, "--protocol", protocol)
        command(truth, fewer, "--protocol", protocol, "--allow-missing", "--bootstrap", 0)
        assert "1 annotated queries have no prediction" in capsys.readouterr().err


ADVERSARIAL = {
    "an empty file": ("", "is empty"),
    "a document": (json.dumps(SAID, indent=1), "line 1: no JSON"),
    "one list": (json.dumps(SAID), "line 1: expected one JSON object a line, got list"),
    "twice the same query": (json.dumps(SAID[0]) + "\n" + json.dumps(SAID[0]), "stands in row 1 too"),
    "NaN": (
        json.dumps(SAID[0] | {"pred_relevant_windows": [[0, float("nan"), 1]]}),
        "expected finite numbers, got nan",
    ),
    "text": (json.dumps(SAID[0] | {"pred_relevant_windows": [["0", 1, 1]]}), "expected finite numbers, got '0'"),
    "brackets": ("[" * 100_000, "line 1: no JSON"),
    "no predictions": (json.dumps({"qid": 1}), "pred_relevant_windows"),
    "bytes": ("\x00\x01", "line 1: no JSON"),
}


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("protocol", ["moments", "charades", "qvhighlights"])
def test_a_wrong_file_is_one_clear_error(name, protocol, tmp_path) -> None:
    text, message = ADVERSARIAL[name]
    truth, said = write(tmp_path / "truth.jsonl", TRUTH[:1]), tmp_path / "said.jsonl"
    said.write_text(text)
    with pytest.raises(AnnotationError, match=message) as caught:
        command(truth, said, "--protocol", protocol)
    assert str(said) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_hundred_thousand_windows_of_any_size_are_measured(tmp_path, capsys) -> None:
    truth = write(tmp_path / "truth.jsonl", TRUTH[:1])
    many = SAID[0] | {"pred_relevant_windows": [[-1e9, 1e9, 0.9], [0, 8, 0.8]] + [[1, 2, 0]] * 10**5}
    said = write(tmp_path / "said.jsonl", [many])
    for protocol in ("moments", "charades", "qvhighlights"):
        command(truth, said, "--protocol", protocol, "--json")
        assert json.loads(capsys.readouterr().out)


def test_wrong_arguments_are_one_clear_error(files, tmp_path) -> None:
    truth, said = files
    with pytest.raises(ConfigError, match="measures runs; a file of predictions goes with moments, charades"):
        command(truth, said, "--protocol", "rows")
    with pytest.raises(ConfigError, match="not both at once"):
        command(truth, said, "--checkpoint", tmp_path, "--cache", tmp_path)
    with pytest.raises(ConfigError, match="--space"):
        command(truth, said, "--space", "tiny")
    with pytest.raises(ConfigError, match="belong to --protocol retrieval, this is moments"):
        command(truth, said, "--dsl")
    with pytest.raises(ConfigError, match="belong to --protocol corpus, this is charades"):
        command(truth, said, "--protocol", "charades", "--fusion", tmp_path / "fusion.json")
    with pytest.raises(ConfigError, match="nothing to evaluate: pass --checkpoint"):
        app(["eval", "--annotations", str(truth)], standalone_mode=False)
    with pytest.raises(InputError, match=r"nowhere\.jsonl"):
        command(truth, tmp_path / "nowhere.jsonl")
    with pytest.raises(InputError, match="this command reads that file"):
        command(truth, said, "--out", said)


def test_no_torch_is_needed(files) -> None:
    line = [sys.executable, "-X", "importtime", "-m", "qle", "eval", "--json", "--protocol", "qvhighlights"]
    done = subprocess.run(
        [*line, "--annotations", str(files[0]), "--predictions", str(files[1])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "qvhighlights" in done.stderr
    assert not [text for text in done.stderr.splitlines() if text.endswith(("| torch", " torch", "transformers"))]
    assert json.loads(done.stdout)["brief"]


def test_queries_that_never_happen_are_left_out_of_the_official_protocol(tmp_path, capsys) -> None:
    truth = write(
        tmp_path / "truth.jsonl",
        [*TRUTH, {"qid": 3, "query": "c", "vid": "a", "duration": 150, "relevant_windows": []}],
    )
    for extra in ([], [{"qid": 3, "pred_relevant_windows": [[0, 2, 0.1]], "pred_saliency_scores": [0.0] * 75}]):
        command(truth, write(tmp_path / "said.jsonl", [*SAID, *extra]), "--protocol", "qvhighlights", "--json")
        shown = capsys.readouterr()
        assert json.loads(shown.out)["brief"]
        assert "1 queries never happen, and are left out" in shown.err


def test_odd_rows_are_named(files, tmp_path, capsys) -> None:
    odd = {
        "qid": 2, "vid": "other", "pred_relevant_windows": [[0, 18, 0.1], [900, 910, 0.9]], "pred_saliency_scores": [1.0] * 9,
    }  # fmt: skip
    for protocol in ("moments", "qvhighlights"):
        command(files[0], write(tmp_path / "odd.jsonl", [SAID[0], odd]), "--protocol", protocol, "--json")
        told = capsys.readouterr().err
        for words in ("not by falling score", "begin behind the end", "name another video", "another number of clips"):
            assert any(words in line and "row 2 (qid 2)" in line for line in told.splitlines()), words


@pytest.mark.parametrize("protocol", ["moments", "qvhighlights"])
def test_a_submission_of_the_truth_passes_with_queries_that_never_happen(tmp_path, capsys, protocol) -> None:
    never = {"qid": 3, "query": "c", "vid": "a", "duration": 150, "relevant_windows": []}
    truth = write(tmp_path / "truth.jsonl", [*TRUTH, never])
    out = tmp_path / "said.jsonl"
    app(["prepare", "export", str(truth), "--to", "qvhighlights-submission", "--out", str(out)], standalone_mode=False)
    assert "2 annotations, 1 left out" in capsys.readouterr().out
    command(truth, out, "--protocol", protocol, "--json")


AGAIN = {
    "qid": 2,
    "pred_relevant_windows": [[100, 90, 0.95], [0, 12, 0.8]],
    "pred_saliency_scores": [-3.0] + [-2.0] * 74,
}
"""A second answer to a query, with a window that ends before it starts."""
PRINTED = {
    "MR-full-R1@0.5": 50.0, "MR-full-mAP": 49.17, "MR-long-mAP": 90.0, "MR-middle-mAP": 22.5, "MR-short-mAP": 35.0,
    "HL-min-Fair-mAP": 50.67, "HL-min-VeryGood-mAP": 25.67, "HL-min-VeryGood-Hit1": 50.0,
}  # fmt: skip
"""What the official program prints for it: the last row counts, and mAP takes the windows of both."""


def test_what_the_official_program_measures_by_accident_is_reached_by_asking(files, tmp_path, capsys) -> None:
    """Repeated queries were an error in every mode, and the way to the published numbers was Python alone."""
    said = write(tmp_path / "twice.jsonl", [*SAID, AGAIN])
    with pytest.raises(AnnotationError, match=r"stands in row 2 too(\n.*){2}--published") as caught:
        command(files[0], said, "--protocol", "qvhighlights")
    assert len(str(caught.value).splitlines()) == 3
    command(files[0], said, "--protocol", "qvhighlights", "--published", "--json", "--out", tmp_path / "report.json")
    shown = capsys.readouterr()
    brief = json.loads(shown.out)["brief"]
    assert {name: brief[name] for name in PRINTED} == PRINTED
    assert "1 rows are about a query that another row is about too" in shown.err
    report = json.loads((tmp_path / "report.json").read_text())
    assert "without_faults" not in report["metrics"]
    assert set(report["metrics"]["official"]["MR-full-mAP"]["floors"]) == {"best_span", "whole_video", "uniform"}
    with pytest.raises(ConfigError, match="--protocol qvhighlights"):
        command(*files, "--published")


def test_what_the_official_program_stops_at_is_an_error_also_when_asked(files, tmp_path) -> None:
    said = write(tmp_path / "empty.jsonl", [SAID[0], {**SAID[1], "pred_relevant_windows": []}])
    for more in ([], ["--published"]):
        with pytest.raises(AnnotationError, match="an empty list") as caught:
            command(files[0], said, "--protocol", "qvhighlights", *more)
        assert "--published" not in str(caught.value)
