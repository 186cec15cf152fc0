"""The commands of `qle prepare`: what they write, print and refuse."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from qle.cli.prepare.surgical import prepare_app
from qle.data.annotations import read_annotations
from qle.data.readers import READERS, reader
from qle.data.readers.concepts import CHOLEC80_PHASES, CHOLEC80_TOOLS
from qle.errors import AnnotationError, ConfigError, QleError

CONCEPTS = CHOLEC80_PHASES + CHOLEC80_TOOLS


def _run(*words: str | Path) -> Result:
    result = CliRunner().invoke(prepare_app, [str(word) for word in words])
    if isinstance(result.exception, QleError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def _json(*words: str | Path) -> Any:
    return json.loads(_run(*words, "--json").stdout)


@pytest.fixture
def cholec80(tmp_path: Path) -> Path:
    """Videos 1, 33 and 41, two seconds each."""
    root = tmp_path / "cholec80"
    for folder in ("phase_annotations", "tool_annotations"):
        (root / folder).mkdir(parents=True)
    for number in (1, 33, 41):
        phases = "".join(f"{frame}\tPreparation\n" for frame in range(50))
        (root / f"phase_annotations/video{number:02d}-phase.txt").write_text("Frame\tPhase\n" + phases)
        tools = "Frame\t" + "\t".join(concept.label for concept in CHOLEC80_TOOLS) + "\n"
        rows = "0\t1\t0\t0\t0\t0\t0\t0\n25\t0\t0\t1\t0\t0\t0\t0\n"
        (root / f"tool_annotations/video{number:02d}-tool.txt").write_text(tools + rows)
    return root


@pytest.mark.slow
def test_importing_the_commands_is_cheap() -> None:
    code = (
        "import sys, qle.cli.prepare.surgical; print(*sorted({'torch', 'pyarrow', 'rich', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.strip() == ""


@pytest.mark.parametrize("command", [*READERS, "to-triplets"])
def test_every_command_has_help_with_examples(command: str) -> None:
    assert f"qle prepare {command} " in _run(command, "--help").output


@pytest.mark.slow
def test_every_reader_is_there_and_knows_no_torch() -> None:
    assert all(callable(reader(name)) for name in READERS)
    modules = [path.split(":")[0] for path in READERS.values()]
    assert all(import_module(name).__doc__ for name in modules)
    code = f"import sys; [__import__(name) for name in {modules}]; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "False\n"


def test_cholec80(cholec80: Path, tmp_path: Path) -> None:
    out = tmp_path / "annotations"
    table = _run("cholec80", cholec80, "--out", out).stdout
    assert sorted(path.name for path in out.iterdir()) == ["test.jsonl", "train.jsonl", "val.jsonl"]
    assert "train.jsonl" in table
    for name, video in (("train", "video01"), ("val", "video33"), ("test", "video41")):
        annotations = read_annotations(out / f"{name}.jsonl")
        assert {annotation.video for annotation in annotations} == {video}
        assert len(annotations) == 15
    with pytest.raises(ConfigError, match="--overwrite"):
        _run("cholec80", cholec80, "--out", out)
    with pytest.raises(ConfigError, match="--split 1-2: choose one of"):
        _run("cholec80", cholec80, "--out", out, "--split", "1-2")


def test_cholec80_with_wordings_that_training_never_sees(cholec80: Path, tmp_path: Path) -> None:
    found = _json("cholec80", cholec80, "--out", tmp_path / "out", "--paraphrases", "--split", "40-40")
    assert [Path(part["path"]).name for part in found["files"]] == [
        "train.jsonl",
        "test.jsonl",
        "test-paraphrase.jsonl",
    ]
    train, test, paraphrase = (read_annotations(part["path"]) for part in found["files"])
    assert {one.query for one in train} == {text for concept in CONCEPTS for text in concept.wordings}
    assert {one.query for one in test} == {text for concept in CONCEPTS for text in concept.published}
    assert {one.query for one in paraphrase} == {concept.held_out for concept in CONCEPTS}
    assert {one.concept for one in train} == {one.concept for one in paraphrase}


def test_cholect50(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for video in (8, 79, 6):
        labels = {
            "fps": 1, "num_frames": 3, "categories": {"triplet": {"0": "grasper,grasp,liver"}},
            "annotations": {"1": [[0, 0, 1, 0.1, 0.1, 0.5, 0.5, *[0] * 8]]},
        }  # fmt: skip
        (tmp_path / f"labels/VID{video:02d}.json").write_text(json.dumps(labels))
    found = _json("cholect50", tmp_path, "--out", tmp_path / "out")
    assert [(Path(part["path"]).name, part["num_videos"]) for part in found["files"]] == [
        ("train.jsonl", 1), ("val.jsonl", 1), ("test.jsonl", 1),
    ]  # fmt: skip
    (annotation,) = read_annotations(tmp_path / "out" / "test.jsonl")
    assert (annotation.video, annotation.query, annotation.windows) == (
        "VID06",
        "the grasper grasps the liver",
        ((1, 2),),
    )
    assert annotation.boxes[0].right == pytest.approx(0.6)


def test_intervals_by_column_by_fraction_and_as_one_file(tmp_path: Path) -> None:
    table = tmp_path / "events.csv"
    rows = "".join(f"v{number},a polyp,1,2,{'val' if number == 3 else 'train'}\n" for number in range(10))
    table.write_text("video,query,start,end,split\n" + rows)
    by_column = _json("intervals", table, "--out", tmp_path / "columns")["files"]
    assert [(Path(part["path"]).name, part["num_videos"]) for part in by_column] == [
        ("train.jsonl", 9),
        ("val.jsonl", 1),
    ]
    by_fraction = _json("intervals", table, "--out", tmp_path / "fractions", "--split", "60-20-20")["files"]
    assert [part["num_videos"] for part in by_fraction] == [6, 2, 2]
    (whole,) = _json("intervals", table, "--out", tmp_path / "all.jsonl")["files"]
    assert (whole["num_videos"], whole["hours"]) == (10, None)
    for split in ("60-40", "a-b-c"):
        with pytest.raises(ConfigError, match="expected three parts of 100"):
            _run("intervals", table, "--out", tmp_path / "x", "--split", split)
    with pytest.raises(ConfigError, match=r"--fps 0\.0: expected a number above 0"):
        _run("intervals", table, "--out", tmp_path / "x", "--fps", "0")


def test_wrong_rows_stop_or_are_listed(tmp_path: Path) -> None:
    table = tmp_path / "events.csv"
    table.write_text("video,query,start,end\na,good,1,2\na,bad,2,1\n")
    with pytest.raises(AnnotationError, match="line 3"):
        _run("intervals", table, "--out", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    result = _run("intervals", table, "--out", tmp_path / "out.jsonl", "--skip-bad")
    assert "1 of 2 rows left out because they are wrong" in result.stderr
    assert "line 3, relevant_windows: [2, 1]" in result.stderr
    found = _json("intervals", table, "--out", tmp_path / "out.jsonl", "--skip-bad", "--overwrite")
    assert len(found["skipped"]) == 1


def test_parts_that_get_no_video_are_told(tmp_path: Path) -> None:
    table = tmp_path / "events.csv"
    table.write_text("video,query,start,end\na,good,1,2\n")
    result = _run("intervals", table, "--out", tmp_path / "out", "--split", "70-15-15")
    assert "no video for train, val: splits go by video, and there are 1" in result.stderr
    assert "no video" not in _run("intervals", table, "--out", tmp_path / "test", "--split", "0-0-100").stderr


def test_skipping_every_row_lists_the_first_reasons(tmp_path: Path) -> None:
    table = tmp_path / "events.csv"
    table.write_text("video,query,start,end\n" + "a,bad,2,1\n" * 5)
    with pytest.raises(AnnotationError, match=r"no interval that can be used\n.*line 2, .*line 3, .*; and 2 more"):
        _run("intervals", table, "--out", tmp_path / "out.jsonl", "--skip-bad")


@pytest.mark.parametrize("indent", [None, 1])
def test_one_json_document_is_no_jsonl(tmp_path: Path, indent: int | None) -> None:
    row = {"qid": 1, "query": "a polyp", "vid": "a", "duration": 9, "relevant_windows": [[1, 2]]}
    source = tmp_path / "val.json"
    for document, kind in (([row, row], "a list of 2"), ({"a": row}, "an object of 1 entries")):
        source.write_text(json.dumps(document, indent=indent))
        with pytest.raises(AnnotationError, match=rf"val\.json is one JSON document \({kind}\), expected JSON Lines"):
            _run("qvhighlights", source, "--out", tmp_path / "out.jsonl")
    source.write_text(json.dumps(row | {"relevant_windows": [[2, 1]]}))
    with pytest.raises(AnnotationError, match="line 1, relevant_windows"):
        _run("qvhighlights", source, "--out", tmp_path / "out.jsonl")


def test_qvhighlights(shared_annotations: Path, tmp_path: Path) -> None:
    (part,) = _json("qvhighlights", shared_annotations / "qvhighlights_val.jsonl", "--out", tmp_path / "val.jsonl")[
        "files"
    ]
    assert part["num_annotations"] == 40
    hidden = _run(
        "qvhighlights", shared_annotations / "qvhighlights_test_hidden.jsonl", "--out", tmp_path / "test.jsonl"
    )
    assert "5 annotations have no labels" in hidden.stderr


def test_charades(shared_annotations: Path, tmp_path: Path) -> None:
    found = _json("charades", shared_annotations / "charades_sta_test.txt", "--out", tmp_path)["files"]
    assert [Path(part["path"]).name for part in found] == ["charades_sta_test.jsonl"]


def test_triplets_there_and_back(cholec80: Path, tmp_path: Path) -> None:
    _run("cholec80", cholec80, "--out", tmp_path / "c80")
    train, table, back = tmp_path / "c80/train.jsonl", tmp_path / "t.csv", tmp_path / "back.jsonl"
    found = _json("to-triplets", train, "--out", table)
    assert found["num_rows"] == len(table.read_text().splitlines()) - 1
    with pytest.raises(ConfigError, match="--overwrite"):
        _run("to-triplets", train, "--out", table)
    _run("triplets", table, "--out", back)
    there, again = ({one.query: one.windows for one in read_annotations(path)} for path in (train, back))
    assert there == again
