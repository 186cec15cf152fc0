"""The commands of `qle cache`: what they print, what they return, and that nothing is deleted without --yes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from qle.cache.reader import open_cache
from qle.cache.spaces import SpaceFolder, create_space
from qle.cli.cache.app import cache_app
from qle.errors import CacheMissingError, ConfigError, QleError
from tests.tiny_cache import commit_video, tiny_spec


@pytest.fixture
def space(tmp_path: Path) -> SpaceFolder:
    space = create_space(tmp_path / "cache", tiny_spec())
    commit_video(space, "ward [3]/a.mp4", num_rows=600)
    commit_video(space, "b.mp4", num_rows=5)
    return space


def _run(*words: str | Path) -> Result:
    result = CliRunner().invoke(cache_app, [str(word) for word in words])
    if isinstance(result.exception, QleError):
        raise result.exception
    return result


def _json(*words: str | Path, code: int = 0) -> dict:  # type: ignore[type-arg]
    result = _run(*words, "--json", "--quiet") if words[0] != "inspect" else _run(*words, "--json")
    assert result.exit_code == code, result.output
    found: dict = json.loads(result.stdout)  # type: ignore[type-arg]
    return found


@pytest.mark.slow
def test_importing_the_commands_is_cheap() -> None:
    heavy = {"torch", "zarr", "h5py", "pyarrow", "rich", "numpy"}
    code = f"import sys, qle.cli.cache.app; print(*sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.strip() == ""


@pytest.mark.parametrize(
    "command", ["inspect", "verify", "convert", "merge", "prune", "pack", "relink", "import", "export"]
)
def test_every_command_has_help_with_examples(command: str) -> None:
    result = _run(command, "--help")
    assert result.exit_code == 0
    assert f"qle cache {command} " in result.output


def test_inspect(space: SpaceFolder) -> None:
    text = _run("inspect", space.path.parent).stdout
    for part in (space.path.name, "2 done", "605 (60 invalid)", "patch", "2 x 2 x 8", "float16"):
        assert part in text
    (found,) = _json("inspect", space.path.parent)["spaces"]
    assert (found["num_rows"], found["states"]["done"]) == (605, 2)


def test_inspect_a_video(space: SpaceFolder, tmp_path: Path) -> None:
    result = _run("inspect", space.path.parent, "--video", "a.mp4", "--picture", tmp_path / "strip.png")
    assert "ward [3]/a.mp4" in result.stdout
    assert (tmp_path / "strip.png").stat().st_size > 1000
    (found,) = _json("inspect", space.path.parent, "--video", "a")
    assert [stream["name"] for stream in found["streams"]] == ["patch", "frame"]
    assert found["streams"][0]["num_not_finite"] == 0
    for bad in ("nodir/a.png", "a.txt"):
        with pytest.raises(ConfigError, match="cannot write the picture"):
            _run("inspect", space.path.parent, "--video", "a.mp4", "--picture", tmp_path / bad)
    with pytest.raises(ConfigError, match="--video"):
        _run("inspect", space.path.parent, "--picture", tmp_path / "strip.png")


def test_the_cache_may_come_from_the_environment(space: SpaceFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QLE_CACHE", str(space.path.parent))
    assert len(_json("inspect")["spaces"]) == 1
    monkeypatch.delenv("QLE_CACHE")
    with pytest.raises(ConfigError, match="QLE_CACHE"):
        _run("inspect")
    with pytest.raises(CacheMissingError):
        _run("inspect", space.path.parent / "nothing")


def test_verify_ends_with_3_and_names_the_file(space: SpaceFolder) -> None:
    root = space.path.parent
    assert _json("verify", root, "--deep")["findings"] == []
    folder = space.folder("b.mp4")
    assert folder is not None
    shard = folder / "frame" / "c.0.0"
    shard.write_bytes(bytes(shard.stat().st_size))
    assert _run("verify", root).exit_code == 0
    result = _run("verify", root, "--deep")
    assert result.exit_code == 3
    assert "b.mp4" in result.stdout
    assert "frame/c.0.0" in result.stdout
    assert f"run: qle cache prune {root} --damaged --deep --yes; then" in result.stdout.replace("\n", " ")
    (finding,) = _json("verify", root, "--deep", "--video", "b.mp4", code=3)["findings"]
    assert (finding["key"], finding["file"]) == ("b.mp4", "frame/c.0.0")
    assert [item["key"] for item in _json("prune", root, "--damaged", "--deep", "--yes")["items"]] == ["b.mp4"]
    assert _json("verify", root, "--deep")["findings"] == []


def test_convert(space: SpaceFolder, tmp_path: Path) -> None:
    report = _json("convert", space.path.parent, "--dtype", "int8", "--grid", "1", "--to", tmp_path / "small")
    assert (report["num_converted"], open_cache(tmp_path / "small").spaces) == (2, (report["space"],))
    with pytest.raises(ConfigError, match="float64"):
        _run("convert", space.path.parent, "--dtype", "float64")


def test_merge_ends_with_3_on_conflicts(space: SpaceFolder, tmp_path: Path) -> None:
    assert _json("merge", space.path.parent, "--into", tmp_path / "all", "--link")["num_merged"] == 2
    commit_video(create_space(tmp_path / "other", tiny_spec()), "b.mp4", num_rows=3, seed=9)
    result = _run("merge", tmp_path / "other", "--into", tmp_path / "all")
    assert result.exit_code == 3
    assert "1 conflicts left as they were" in result.stdout


@pytest.mark.parametrize("command", ["convert", "merge", "pack"])
def test_left_out_videos_end_a_command_with_4(space: SpaceFolder, tmp_path: Path, command: str) -> None:
    """A script that goes on to delete the source must learn that not all of it was taken."""
    folder = space.folder("b.mp4")
    assert folder is not None
    (folder / "zarr.json").unlink()
    options = {"convert": ("--store", "hdf5"), "merge": ("--into", tmp_path / "all"), "pack": ()}[command]
    assert list(_json(command, space.path.parent, *options, code=4)["damaged"]) == ["b.mp4"]


def test_prune_deletes_only_with_yes(space: SpaceFolder) -> None:
    root = space.path.parent
    folder = space.folder("b.mp4")
    assert folder is not None
    (folder / "zarr.json").unlink()
    assert "nothing to prune" in _run("prune", root).stdout
    result = _run("prune", root, "--damaged")
    assert "nothing was deleted" in result.stdout
    assert "zarr.json is missing" in result.stdout
    assert folder.exists()
    assert [item["key"] for item in _json("prune", root, "--damaged", "--yes")["items"]] == ["b.mp4"]
    assert not folder.exists()
    with pytest.raises(ConfigError, match="--delete-space"):
        _run("prune", root, "--delete-space", "tiny", "--stale")
    _run("prune", root, "--delete-space", "tiny", "--yes")
    assert open_cache(root).spaces == ()


def test_pack(space: SpaceFolder) -> None:
    assert _json("pack", space.path.parent)["num_packed"] == 2
    assert "2 videos packed" in _run("inspect", space.path.parent).stdout


def test_relink_ends_with_4_while_films_are_missing(space: SpaceFolder, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    result = _json("relink", space.path.parent, "--films", tmp_path / "films", "--dry-run", code=4)
    assert set(result["missing"]) == {"ward [3]/a.mp4", "b.mp4"}
    shown = _run("relink", space.path.parent, "--films", tmp_path / "films")
    assert "0 films are where they were, 0 were found elsewhere, 2 were not found" in shown.stdout
    with pytest.raises(ConfigError, match="--films FOLDER"):
        _run("relink", space.path.parent)


def test_export_and_import(space: SpaceFolder, tmp_path: Path) -> None:
    root = space.path.parent
    assert _json("export", root, "--to", tmp_path / "out")["num_exported"] == 2
    with np.load(tmp_path / "out" / "ward [3]" / "a.npz") as file:
        assert file["features"].shape == (600, 8)
    (tmp_path / "out" / "torn.npz").write_bytes(b"PK")
    words = ["import", tmp_path / "new", "--from", tmp_path / "out", "--name", "mine", "--clip-length", "2"]
    report = _json(*words, code=4)
    assert (report["num_imported"], list(report["failed"])) == (2, ["torn"])
    assert open_cache(tmp_path / "new").space().video("b").pts.tolist() == [1, 3, 5, 7, 9]
    with pytest.raises(ConfigError, match="--name"):
        _run("import", tmp_path / "new", "--from", tmp_path / "out")
    with pytest.raises(ConfigError, match="--to"):
        _run("export", root)


def test_progress_stays_off_stdout(space: SpaceFolder) -> None:
    result = _run("verify", space.path.parent, "--json")
    json.loads(result.stdout)
    assert "verified" in result.stderr
