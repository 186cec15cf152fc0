"""What a command reads is never written over; an earlier result is."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qle.errors import ConfigError, InputError
from qle.outputs import FILM_SUFFIXES, MEASURES_SUFFIXES, check_output, format_of


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_what_is_read_is_never_written_over(tmp_path: Path, link: object) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"film")
    target = tmp_path / "sub" / ".." / "film.mp4"
    (tmp_path / "sub").mkdir()
    if callable(link):
        target = tmp_path / "other.mp4"
        link(film, target)
    with pytest.raises(InputError, match="reads that file"):
        check_output("--overlay-video", target, inputs=[film], suffixes=FILM_SUFFIXES)


def test_runs_and_caches_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a run or cache"):
        check_output("--out", tmp_path / "run" / "new.json", folders=[tmp_path / "run"], suffixes=MEASURES_SUFFIXES)
    check_output("--out", tmp_path / "run-2.json", folders=[tmp_path / "run"], suffixes=MEASURES_SUFFIXES)


def test_only_an_earlier_result_is_written_over(tmp_path: Path) -> None:
    film, result, link = tmp_path / "film.mp4", tmp_path / "result.json", tmp_path / "link.json"
    film.write_bytes(b"film")
    result.write_text("{}")
    link.symlink_to(film)
    for path in (film, link):
        with pytest.raises(InputError, match="no earlier result"):
            check_output("--out", path, suffixes=MEASURES_SUFFIXES)
    check_output("--out", None, suffixes=MEASURES_SUFFIXES)
    for path in (result, tmp_path / "new.JSON", tmp_path / "new", tmp_path / "new.2", Path(os.devnull)):
        check_output("--out", path, suffixes=MEASURES_SUFFIXES)


@pytest.mark.parametrize(
    ("command", "option", "name", "expected"),
    [
        ("localize --checkpoint run --cache cache --query a", "--report", "r.pdf", "r.html"),
        ("localize --checkpoint run --video film.mp4 --query a", "--out", "x.xlsx", "x.json"),
        ("localize --checkpoint run --video film.mp4 --query a --format csv", "--out", "x.xlsx", "x.json"),
        ("search --retriever run --cache cache --query a", "--out", "x.xlsx", "x.json"),
        ("eval --checkpoint run --cache cache --annotations a.json", "--out", "x.csv", "x.json"),
        ("eval --checkpoint run --cache cache --annotations a.json --protocol corpus", "--fit", "x.txt", "x.json"),
        ("explain --checkpoint run --cache cache --query a", "--report", "r.docx", "r.html"),
        ("explain --checkpoint run --cache cache --query a --video-id v", "--overlay-video", "x.gif", "x.mp4"),
        ("explain --checkpoint run --cache cache --faithfulness --annotations a.json", "--out", "x.html", "x.json"),
    ],
)
def test_a_name_that_promises_another_kind_of_file_is_refused(
    command: str, option: str, name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An HTML page called r.pdf was written after minutes of work, and no program could open it."""
    from qle.cli.app import app

    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, [*command.split(), option, name])
    assert isinstance(found.exception, ConfigError)  # and not that there is no such run: nothing was looked at yet
    assert f"{option} {name}: {Path(name).suffix} files are not written here" in str(found.exception)
    assert f"name it e.g. {expected}" in str(found.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        "localize --checkpoint run --cache cache --queries q.jsonl --out q.jsonl",
        "localize --checkpoint run --cache cache --query a --out film.mp4",
        "localize --checkpoint run --video film.mp4 --query a --report film.mp4",
        "localize --checkpoint run --cache cache --query a --out run/config.json",
        "explain --checkpoint run --cache cache --query a --report film.mp4",
        "explain --checkpoint run --cache cache --faithfulness --annotations a.json --out a.json",
        "eval --checkpoint run --cache cache --annotations a.json --out a.json",
        "eval --checkpoint run --cache cache --annotations a.json --out run/config.json",
    ],
)
def test_commands_refuse_before_any_work(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qle.cli.app import app

    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    files = [tmp_path / name for name in ("film.mp4", "q.jsonl", "a.json", "run/config.json")]
    for path in files:
        path.write_text('{"query": "a"}')
    found = CliRunner().invoke(app, words.split())
    assert isinstance(found.exception, InputError)
    assert [path.read_text() for path in files] == ['{"query": "a"}'] * len(files)


@pytest.mark.parametrize(
    ("format_", "is_json", "kind"), [("table", False, "table"), ("table", True, "json"), ("json", True, "json")]
)
def test_json_is_a_format(format_: str, is_json: bool, kind: str) -> None:
    assert format_of(format_, is_json, None, ("table", "json", "csv")) == kind


@pytest.mark.parametrize(("format_", "is_json"), [("csv", True), ("xml", False)])
def test_formats_that_contradict_or_that_nobody_knows_are_refused(format_: str, is_json: bool, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose one of"):
        format_of(format_, is_json, None, ("table", "json", "csv"))
    with pytest.raises(ConfigError, match="a folder stands there"):
        format_of("csv", False, tmp_path, ("csv",))
