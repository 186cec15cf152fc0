"""Commands that look after a cache, killed before single operations on files: the same command finishes, and leaves nothing."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from qle.cache.reader import open_cache
from qle.cache.spaces import create_space
from qle.cache.tools.convert import convert
from qle.cache.tools.interchange import ImportOptions, import_features
from qle.cache.tools.merge import merge
from qle.cache.tools.pack import pack
from qle.cache.tools.prune import plan_prune, prune
from qle.cache.tools.verify import verify
from qle.durable import replace_file
from qle.errors import CacheMissingError
from tests.killed import killed_at
from tests.tiny_cache import commit_video, nothing_left, run, tiny_spec

pytestmark = pytest.mark.slow

KEYS = ("a.mp4", "b.mp4", "c/d.mp4")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("killed")
    space = create_space(root / "cache", tiny_spec())
    for key in KEYS:
        commit_video(space, key, num_rows=4)
    (root / "features").mkdir()
    for key in "xy":
        np.save(root / "features" / f"{key}.npy", np.ones((3, 4), np.float32))
    return root


def _pack(root: Path) -> None:
    pack(root / "cache")


def _convert_dtype(root: Path) -> None:
    convert(root / "cache", dtype="int8")


def _convert_store(root: Path) -> None:
    convert(root / "cache", store="hdf5")


def _merge(root: Path) -> None:
    merge([root / "cache"], root / "merged")


def _import(root: Path) -> None:
    import_features([root / "features"], root / "imported", ImportOptions(name="x", fps=1))


def _delete_space(root: Path) -> None:
    """As often as it takes: where everything went before the kill, there is nothing to name any more."""
    with suppress(CacheMissingError):
        prune(root / "cache", plan_prune(root / "cache", kinds=["space"], spaces=["tiny-float16"]))


COMMANDS: dict[str, tuple[Callable[[Path], None], str, dict[str, tuple[str, ...]]]] = {
    "pack": (_pack, "cache", {"tiny-float16": KEYS}),
    "convert --dtype int8": (_convert_dtype, "cache", {"tiny-float16": KEYS, "tiny-float16-int8": KEYS}),
    "convert --store hdf5": (_convert_store, "cache", {"tiny-float16": KEYS}),
    "merge": (_merge, "merged", {"tiny-float16": KEYS}),
    "import": (_import, "imported", {"x": ("x", "y")}),
    "prune --delete-space": (_delete_space, "cache", {}),
}


def _kill_and_repeat(made: Path, folder: Path, name: str, number: int) -> bool:
    """Kill the command before its n-th operation, give it again, and look at what is there. False where it had ended before."""
    command, cache, expected = COMMANDS[name]
    root = Path(shutil.copytree(made, folder))
    was_killed = killed_at(number, root, command, root)
    command(root)
    opened = open_cache(root / cache)
    assert {space.rpartition("-")[0]: opened.space(space).keys() for space in opened.spaces} == expected
    assert verify(root / cache, deep=True).findings == []
    assert nothing_left(root / cache)
    shutil.rmtree(root)
    return was_killed


@pytest.mark.slow
@pytest.mark.parametrize("number", [3, 20])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_finishes_when_it_is_given_again_and_leaves_nothing(
    made: Path, tmp_path: Path, name: str, number: int
) -> None:
    """`convert --dtype int8` said that there were several spaces, `prune --delete-space` that there was none of that name."""
    _kill_and_repeat(made, tmp_path / "root", name, number)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_may_be_killed_before_any_operation(made: Path, tmp_path: Path, name: str) -> None:
    number = 1
    while _kill_and_repeat(made, tmp_path / "root", name, number):
        number += 1
    assert number > 10


@pytest.mark.faults
def test_ninety_kills_of_pack_leave_nothing_after_the_next_one(made: Path, tmp_path: Path) -> None:
    """There were 82 entries in tmp/ and claims/."""
    root = Path(shutil.copytree(made, tmp_path / "root"))
    space = create_space(root / "cache", tiny_spec())
    for number in range(90):
        commit_video(space, f"{number}.mp4", num_rows=2)
        killed_at(1 + number % 45, root, _pack, root)
    pack(root / "cache")
    assert nothing_left(root / "cache")
    assert len(open_cache(root / "cache").space()) == len(KEYS) + 90
    assert verify(root / "cache", deep=True).findings == []


def _replace(path: Path) -> None:
    replace_file(path, b"new")


def test_a_file_that_was_about_to_be_replaced_anywhere_goes_when_it_is_written_again(tmp_path: Path) -> None:
    """As in the folder of a run, or beside a report: no command comes there to look for what killed ones have left."""
    path = tmp_path / "run" / "metrics.json"
    path.parent.mkdir()
    path.write_bytes(b"old")
    other = path.with_name(".qle-other.json.0123.tmp")
    other.write_bytes(b"of somebody else")
    assert killed_at(2, tmp_path, _replace, path)
    assert path.read_bytes() == b"old"
    assert len(list(path.parent.iterdir())) == 3
    assert run(_replace, path) == 0
    assert sorted(path.parent.iterdir()) == [other, path]
