"""Films that have moved are found by what they hold, and nothing but records is written."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from qle.cache import packs
from qle.cache.index import load_index
from qle.cache.reader import Space
from qle.cache.records import SourceFacts
from qle.cache.sources import fingerprint
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.states import states
from qle.cache.tools import relink as relink_module
from qle.cache.tools.pack import pack
from qle.cache.tools.relink import relink
from qle.cache.tools.verify import verify
from qle.cache.writer import VideoWriter
from qle.errors import InputError
from qle.types import VideoSource
from tests.tiny_cache import contents, fill, nothing_left, run, tiny_plan, tiny_spec, tiny_values

FILMS = ("a.mp4", "b.mp4", "c.mp4")


def _fill(root: Path) -> SpaceFolder:
    """A cache of three films of one size in the folder `films`."""
    space = create_space(root / "cache", tiny_spec())
    (root / "films").mkdir()
    for number, name in enumerate(FILMS):
        path = root / "films" / name
        path.write_bytes(bytes([number]) * 5000)
        source = SourceFacts(path=str(path), fingerprint=fingerprint(path))
        with VideoWriter.open(space, name, tiny_plan(5), source, durability="none") as writer:
            fill(writer, tiny_values(5, seed=number))
            writer.commit()
    return space


def _move(root: Path) -> None:
    """The films get other names in other folders, and lose their times; one is gone, and a stranger has its size."""
    (root / "archive" / "2024").mkdir(parents=True)
    shutil.copyfile(root / "films" / "a.mp4", root / "archive" / "2024" / "renamed.mp4")
    for folder in ("archive", "archive/2024"):
        shutil.copyfile(root / "films" / "b.mp4", root / folder / ("other.mp4" if folder == "archive" else "b.mp4"))
    (root / "archive" / "c.mp4").write_bytes(b"x" * 5000)
    shutil.rmtree(root / "films")


def _paths(space: SpaceFolder) -> dict[str, str]:
    reader = Space(space)
    return {key: Path(reader.video(key).record.source.path).name for key in reader}


@pytest.mark.parametrize("is_packed", [False, True])
def test_moved_films_are_found_by_what_they_hold(tmp_path: Path, is_packed: bool) -> None:
    space = _fill(tmp_path)
    if is_packed:
        pack(tmp_path / "cache")
    _move(tmp_path)
    load_index(space)
    before = contents(space.path / "videos")
    tokens = {key: Space(space).video(key).patch[:].tobytes() for key in FILMS}
    planned = relink(tmp_path / "cache", [tmp_path / "archive"], is_dry_run=True)
    assert contents(space.path / "videos") == before
    assert _paths(space) == {name: name for name in FILMS}
    report = relink(tmp_path / "cache", [tmp_path / "archive"])
    assert report.moved == planned.moved
    assert [(it.key, Path(it.new).relative_to(tmp_path).as_posix(), it.num_copies) for it in report.moved] == [
        ("a.mp4", "archive/2024/renamed.mp4", 1),
        ("b.mp4", "archive/2024/b.mp4", 2),  # the one that is called as before
    ]
    assert report.missing == {"c.mp4": str(tmp_path / "films" / "c.mp4")}
    assert _paths(space) == {"a.mp4": "renamed.mp4", "b.mp4": "b.mp4", "c.mp4": "c.mp4"}
    assert contents(space.path / "videos") == before
    assert {key: Space(space).video(key).patch[:].tobytes() for key in FILMS} == tokens
    assert verify(tmp_path / "cache", deep=True).findings == []
    moved = [VideoSource(key="a.mp4", path=tmp_path / "archive" / "2024" / "renamed.mp4")]
    assert [found.state for found in states(space, moved)] == ["done"]
    assert "renamed.mp4" in {Path(path).name for path in load_index(space).texts("source_path")}
    again = relink(tmp_path / "cache", [tmp_path / "archive"])
    assert (again.num_in_place, again.moved) == (2, [])
    assert nothing_left(tmp_path / "cache")


def _relink_until(root: Path, place: str, fatal_call: int) -> None:
    calls = 0
    original = getattr(os, place)

    def die(*args: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == fatal_call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **named)

    setattr(relink_module.os, place, die)
    relink(root / "cache", [root / "archive"])


@pytest.mark.parametrize(("place", "call"), [("rename", 1), ("rename", 2), ("utime", 2)])
@pytest.mark.parametrize("is_packed", [False, True])
def test_a_killed_search_goes_on(tmp_path: Path, place: str, call: int, is_packed: bool) -> None:
    space = _fill(tmp_path)
    if is_packed:
        pack(tmp_path / "cache")
    _move(tmp_path)
    code = run(_relink_until, tmp_path, place, call)
    assert code == (0 if is_packed and place == "utime" else -9)
    assert Space(space).keys() == FILMS
    relink(tmp_path / "cache", [tmp_path / "archive"])
    assert _paths(space) == {"a.mp4": "renamed.mp4", "b.mp4": "b.mp4", "c.mp4": "c.mp4"}
    assert len(packs.pack_folders(space.path)) == is_packed
    assert verify(tmp_path / "cache", deep=True).findings == []
    assert nothing_left(tmp_path / "cache")


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    space = _fill(tmp_path)
    with pytest.raises(InputError, match="where the films may be now"):
        relink(space.path.parent, [tmp_path / "nowhere"])
