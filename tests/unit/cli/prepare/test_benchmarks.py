"""The commands of `qle prepare` for benchmarks: parts, exports, summaries."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from qle.cli.prepare.surgical import prepare_app
from qle.data.annotations import read_annotations
from qle.data.writers import WRITERS
from qle.errors import AnnotationError, ConfigError, InputError, QleError
from tests.dataset_samples import CHARADES, LENGTHS, MSRVTT_DATA, SAMPLES, TACOS, TACOS_CG
from tests.small_language_models import gpt2_folder

pytestmark = pytest.mark.slow


def _run(*words: str | Path) -> Result:
    result = CliRunner().invoke(prepare_app, [str(word) for word in words])
    if isinstance(result.exception, QleError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def _json(*words: str | Path) -> Any:
    return json.loads(_run(*words, "--json").stdout)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_dataset_by_its_command(name: str, tmp_path: Path) -> None:
    """Retrieval's captions too: nobody is asked for a flag to read them."""
    sample = SAMPLES[name]
    source, options = sample.write(tmp_path)
    flags = [f"--{key.replace('_', '-')}" if value is True else f"--{key}={value}" for key, value in options.items()]
    found = _json(sample.reader, source, *flags, "--out", tmp_path / "out.jsonl")
    assert found["files"][0]["num_annotations"] == sample.num_annotations
    annotations = read_annotations(tmp_path / "out.jsonl", allow_unlabelled=True)
    assert len(annotations) == sample.num_annotations
    result = _run(sample.reader, source, *flags, "--out", tmp_path / "out.jsonl", "--overwrite")
    unlabelled = sum(not one.is_labelled for one in annotations)
    assert ("have no labels of when" in result.stderr) == bool(unlabelled)


def test_several_files_are_several_parts(tmp_path: Path) -> None:
    for name in ("train", "novel_word"):
        (tmp_path / f"{name}.json").write_text(SAMPLES["charades-cg"].content)
    files = [tmp_path / f"{name}.json" for name in ("novel_word", "train")]
    found = _json("charades-cg", *files, "--out", tmp_path / "out")
    assert [Path(part["path"]).name for part in found["files"]] == ["train.jsonl", "novel_word.jsonl"]
    assert [note.partition(": ")[0] for note in found["notes"]] == [str(path) for path in files]
    with pytest.raises(ConfigError, match="one file, and there are 2 parts"):
        _run("charades-cg", *files, "--out", tmp_path / "out.jsonl")
    with pytest.raises(ConfigError, match="two files are called train"):
        _run("charades-cg", files[1], files[1], "--out", tmp_path / "out")


def test_captions_in_the_splits_of_their_file(tmp_path: Path) -> None:
    (tmp_path / "MSRVTT_data.json").write_text(json.dumps(MSRVTT_DATA))
    found = _json("msrvtt", tmp_path / "MSRVTT_data.json", "--out", tmp_path / "out")
    assert [(Path(part["path"]).name, part["num_unlabelled"]) for part in found["files"]] == [
        ("train.jsonl", 3),
        ("val.jsonl", 1),
    ]


@pytest.mark.parametrize("command", ["tacos", "activitynet", "charades-cd", "tvsum", "didemo", "msrvtt", "tacos-cg"])
def test_a_wrong_file_stops_before_anything_is_written(command: str, tmp_path: Path) -> None:
    (tmp_path / "a.x").write_text("{" if command != "didemo" else "text\n")
    with pytest.raises(QleError, match=r"a\.x"):
        _run(command, tmp_path / "a.x", "--out", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


# export


def test_charades_and_back(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text(CHARADES)
    (tmp_path / "lengths.csv").write_text(LENGTHS)
    _run("charades", tmp_path / "test.txt", "--durations", tmp_path / "lengths.csv", "--out", tmp_path / "a.jsonl")
    found = _json("export", tmp_path / "a.jsonl", "--to", "charades-sta", "--out", tmp_path / "back.txt")
    lines, lengths = map(Path, found["paths"])
    assert (lines, found["num_annotations"]) == (tmp_path / "back.txt", 3)
    _run("charades", lines, "--durations", lengths, "--out", tmp_path / "b.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"back\.txt, .*back_lengths\.csv would be replaced"):
        _run("export", tmp_path / "a.jsonl", "--to", "charades-sta", "--out", lines)
    with pytest.raises(InputError, match="this command reads that file"):
        _run("export", tmp_path / "a.jsonl", "--to", "lighthouse", "--out", tmp_path / "a.jsonl", "--overwrite")


def test_the_help_of_export_names_every_format() -> None:
    words = " ".join(_run("export", "--help").output.replace("\u2502", " ").split())
    assert all(f"{name}," in words or f"{name} (" in words or f"{name}." in words for name in WRITERS), words


def test_what_an_export_loses_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("video,query,start,end\na,he sits,1,2\na,it rains,,\n")
    _run("intervals", tmp_path / "a.csv", "--out", tmp_path / "a.jsonl")
    result = _run("export", tmp_path / "a.jsonl", "--to", "lighthouse", "--out", tmp_path / "b.jsonl")
    assert "1 annotations left out: they say that their query never happens" in result.stderr
    assert len((tmp_path / "b.jsonl").read_text().splitlines()) == 1


# tacos-cg


@pytest.fixture
def fine(tmp_path: Path) -> Path:
    (tmp_path / "tacos.json").write_text(json.dumps(TACOS))
    _run("tacos", tmp_path / "tacos.json", "--out", tmp_path / "fine.jsonl")
    return tmp_path / "fine.jsonl"


def test_summaries_without_a_model(fine: Path, tmp_path: Path) -> None:
    out = tmp_path / "coarse.jsonl"
    found = _json("tacos-cg", "--annotations", fine, "--out", out, "--quiet")
    assert (found["num_videos"], found["num_rows"], found["num_made"]) == (2, 6, 6)
    assert found["levels"]["title"] == {"method": "extractive", "version": 1}
    result = _run("tacos-cg", "--annotations", fine, "--out", out)
    assert "6 queries about 2 videos, 0 of them made now" in result.stdout
    assert "summarised 2/2" in result.stderr or "summarised 1/2" in result.stderr
    _run("export", out, "--to", "tacos-cg", "--out", tmp_path / "coarse.json")
    back = _json("tacos-cg", tmp_path / "coarse.json", "--out", tmp_path / "back.jsonl")
    assert back["files"][0]["num_annotations"] == 6


@pytest.mark.slow
def test_summaries_by_a_local_model(fine: Path, tmp_path: Path, one_thread: None) -> None:
    model = gpt2_folder(tmp_path / "model", is_chat=True)
    words = ("tacos-cg", "--annotations", fine, "--model", model, "--levels", "title", "--device", "cpu", "--quiet")
    found = _json(*words, "--out", tmp_path / "coarse")
    path = tmp_path / "coarse" / "fine_summaries.jsonl"
    assert (found["path"], found["num_rows"] + len(found["notes"])) == (str(path), 2)
    for row in read_annotations(path, allow_unlabelled=True):
        assert {key: row.origin[key] for key in found["levels"]["title"]} == found["levels"]["title"]
        assert (row.origin["model"], row.origin["template"]) == (str(model), "chat")
    assert _json(*words, "--out", tmp_path / "coarse")["num_made"] == 0
    with pytest.raises(ConfigError, match="rows that would not be made now"):
        _run("tacos-cg", "--annotations", fine, "--levels", "title", "--out", path)


def test_either_read_or_make(fine: Path, tmp_path: Path) -> None:
    (tmp_path / "cg.json").write_text(json.dumps(TACOS_CG))
    for words, message in (
        (["tacos-cg"], "name either"),
        (["tacos-cg", tmp_path / "cg.json", "--levels", "title"], "--levels: for queries made from --annotations"),
        (["tacos-cg", tmp_path / "cg.json", "--annotations", fine], "name either"),
        (["tacos-cg", tmp_path / "cg.json", "--model", "m"], "--model: for queries made from --annotations"),
        (["tacos-cg", "--annotations", fine, "--videos", fine], "--videos and --skip-bad belong to the published file"),
        (["tacos-cg", "--annotations", fine, "--levels", "short"], "--levels short"),
    ):
        with pytest.raises(ConfigError, match=message):
            _run(*words, "--out", tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="this command reads that file"):
        _run("tacos-cg", "--annotations", fine, "--out", fine)
    (tmp_path / "none.txt").write_text("s0-d0\n")
    with pytest.raises(AnnotationError, match="holds no summary that can be used"):
        _run("tacos-cg", tmp_path / "cg.json", "--videos", tmp_path / "none.txt", "--out", tmp_path / "out.jsonl")
