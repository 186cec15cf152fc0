"""Packed videos read as they did before, and a kill at any moment loses none."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from qle.cache import packs
from qle.cache.index import load_index
from qle.cache.reader import Space, open_cache
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.states import states
from qle.cache.tools import removal
from qle.cache.tools.convert import convert
from qle.cache.tools.inspect import inspect_cache
from qle.cache.tools.pack import pack
from qle.cache.tools.verify import verify
from qle.errors import CacheCorruptError, CacheError, CacheMissingError
from qle.types import VideoSource
from tests.tiny_cache import PROCESSES, commit_video, nothing_left, tiny_spec

pytestmark = pytest.mark.slow

NUM_ROWS = {"a.mp4": 7, "b/c.mp4": 1, "b/d.mp4": 600, "e.mp4": 30}
STREAMS = ("patch", "frame", "pts", "index", "valid")


def _fill(root: Path, dtype: str = "float16") -> SpaceFolder:
    space = create_space(root, tiny_spec(dtype))
    for number, (key, num_rows) in enumerate(NUM_ROWS.items()):
        commit_video(space, key, num_rows=num_rows, seed=number, store="hdf5" if key == "e.mp4" else "zarr")
    return space


def _read(root: Path) -> dict[str, dict[str, np.ndarray]]:
    space = open_cache(root).space()
    return {key: {name: space.video(key).rows_of(name)[:] for name in space.streams} for key in space}


def _assert_equal(one: dict[str, dict[str, np.ndarray]], other: dict[str, dict[str, np.ndarray]]) -> None:
    assert one.keys() == other.keys()
    for key, streams in one.items():
        for name, values in streams.items():
            np.testing.assert_array_equal(values, other[key][name], err_msg=f"{key} {name}")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
def test_packed_videos_read_as_before(tmp_path: Path, dtype: str) -> None:
    space = _fill(tmp_path, dtype)
    before = _read(tmp_path)
    report = pack(tmp_path)
    assert (report.num_packed, report.num_packs, report.num_removed) == (4, 1, 4)
    assert list((space.path / "videos").rglob("*.zarr")) == []
    _assert_equal(before, _read(tmp_path))
    assert open_cache(tmp_path).space().video("d").num_rows == 600
    assert (pack(tmp_path).num_packed, len(load_index(space))) == (0, 4)


def test_windows_and_loader_workers_read_packs(tmp_path: Path) -> None:
    space = _fill(tmp_path)
    windows = [("b/d.mp4", 510, 530), ("e.mp4", 3, 23), ("b/d.mp4", 0, 20)]  # the first crosses a file of the pack
    before = Space(space).read_windows("patch", windows)
    pack(tmp_path)
    reader = pickle.loads(pickle.dumps(Space(space)))
    np.testing.assert_array_equal(reader.read_windows("patch", windows), before)


def test_plain_zarr_opens_a_pack(tmp_path: Path) -> None:
    space = _fill(tmp_path)
    before = _read(tmp_path)
    pack(tmp_path)
    (folder,) = packs.pack_folders(space.path)
    group = zarr.open_group(folder, mode="r")
    order = sorted(NUM_ROWS)
    for name in STREAMS:
        np.testing.assert_array_equal(group[name][:], np.concatenate([before[key][name] for key in order]))


def test_long_videos_stay_by_themselves_and_packs_have_a_limit(tmp_path: Path) -> None:
    space = _fill(tmp_path)
    sizes = {key: space.committed(key).size_bytes for key in NUM_ROWS}  # type: ignore[union-attr]
    pack(tmp_path, max_video_bytes=sizes["b/d.mp4"] - 1, max_pack_bytes=sizes["a.mp4"] + sizes["b/c.mp4"])
    assert space.folder("b/d.mp4") is not None
    assert {key for key in NUM_ROWS if space.folder(key) is None} == {"a.mp4", "b/c.mp4"}  # e.mp4 was left alone


def test_states_of_packed_videos(tmp_path: Path) -> None:
    space = _fill(tmp_path)
    pack(tmp_path)
    sources = [VideoSource(key=key, path=Path("gone")) for key in [*NUM_ROWS, "new.mp4"]]
    assert [state.state for state in states(space, sources)] == ["done"] * 4 + ["pending"]
    (folder,) = packs.pack_folders(space.path)
    os.truncate(folder / "patch" / "c.1.0.0.0", 10)
    found = {state.key: state.state for state in states(space, sources)}
    # Videos lie in the order of their keys: rows 512 and later belong to the third and the fourth.
    assert found == {"a.mp4": "done", "b/c.mp4": "done", "b/d.mp4": "damaged", "e.mp4": "damaged", "new.mp4": "pending"}
    with pytest.raises(CacheCorruptError, match=r"c\.1\.0\.0\.0"):
        Space(space).video("e.mp4")
    assert Space(space).video("a.mp4").patch[:].shape == (7, 2, 2, 8)


def test_a_video_that_comes_anew_hides_its_packed_one(tmp_path: Path) -> None:
    space = _fill(tmp_path)
    pack(tmp_path)
    commit_video(space, "a.mp4", num_rows=5, seed=77)
    assert Space(space).video("a.mp4").num_rows == 5
    index = load_index(space)
    assert index.column("num_rows")[index.row_of_key["a.mp4"]] == 5
    assert len(index) == 4
    commit_video(space, "f.mp4", num_rows=3)
    commit_video(space, "g.mp4", num_rows=3)
    assert (
        pack(tmp_path).num_packed == 2
    )  # not the new a.mp4: of two packed versions nobody could tell which one counts
    assert Space(space).video("a.mp4").num_rows == 5


def test_verify_names_the_videos_of_a_flipped_bit(tmp_path: Path) -> None:
    space = _fill(tmp_path)
    pack(tmp_path)
    (folder,) = packs.pack_folders(space.path)
    shard = folder / "frame" / "c.1.0"
    content = bytearray(shard.read_bytes())
    content[40] ^= 4
    shard.write_bytes(content)
    assert verify(tmp_path).findings == []
    (finding,) = verify(tmp_path, deep=True).findings
    assert (finding.key, finding.file, finding.videos) == (folder.name, "frame/c.1.0", ("b/d.mp4", "e.mp4"))


@pytest.mark.parametrize("deep", [False, True])
def test_verify_looks_at_a_packed_video_by_its_key(tmp_path: Path, deep: bool) -> None:
    """It looked at no pack when keys were given, and found nothing wrong with the none that it had seen."""
    space = _fill(tmp_path)
    pack(tmp_path)
    report = verify(tmp_path, keys=["a.mp4"], deep=deep)
    assert (report.num_videos, report.findings) == (1, [])
    (folder,) = packs.pack_folders(space.path)
    os.truncate(folder / "patch" / "c.0.0.0.0", 10)
    (finding,) = verify(tmp_path, keys=["a.mp4"], deep=deep).findings
    assert (finding.key, finding.file) == ("a.mp4", "patch/c.0.0.0.0")
    with pytest.raises(CacheMissingError, match=r"no video 'z\.mp4'"):
        verify(tmp_path, keys=["z.mp4"], deep=deep)


def test_a_pack_that_cannot_be_read_is_a_finding_and_hides_no_other(tmp_path: Path) -> None:
    space = _fill(tmp_path)
    pack(tmp_path)
    commit_video(space, "alone.mp4", num_rows=3)
    (folder,) = packs.pack_folders(space.path)
    good = folder.with_name("pack-z")
    shutil.copytree(folder, good)
    (folder / packs.MEMBERS_FILE).write_bytes(b"PAR1")
    packs.open_pack.cache_clear()
    assert [(found.key, found.file) for found in verify(tmp_path).findings] == [(folder.name, packs.PACK_FILE)]
    assert [Space(space).video(key).num_rows for key in ("alone.mp4", "a.mp4")] == [3, 7]
    shutil.rmtree(good)
    with pytest.raises(CacheCorruptError, match=r"extract its videos again"):  # it may have been in there
        Space(space).video("a.mp4")


def test_a_pack_of_another_space_is_refused(tmp_path: Path) -> None:
    """Its tokens mean something else."""
    space = _fill(tmp_path)
    pack(tmp_path)
    other = create_space(tmp_path, tiny_spec("bfloat16"))
    shutil.copytree(space.path / packs.PACKS, other.path / packs.PACKS)
    with pytest.raises(CacheCorruptError, match="made for space"):
        Space(other).video("a.mp4")
    assert ["made for space" in found.problem for found in verify(tmp_path).findings] == [True]


@pytest.mark.slow
def test_reading_single_videos_imports_no_pyarrow(tmp_path: Path) -> None:
    """Loader workers are many, and it costs each of them time and memory."""
    commit_video(create_space(tmp_path, tiny_spec()), "a.mp4", num_rows=5)
    code = (
        "import sys, qle; qle.open_cache(sys.argv[1]).space().read_windows('patch', [('a.mp4', 0, 4)]); "
        "print([name for name in sys.modules if name.startswith(('pyarrow', 'zarr', 'h5py', 'torch'))])"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=600)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_damaged_videos_are_left_alone_and_named(tmp_path: Path) -> None:
    """A flipped bit was copied and got a new, fitting hash; a missing file ended the run at each attempt."""
    space = _fill(tmp_path)
    flipped, lost = space.folder("a.mp4"), space.folder("b/c.mp4")
    assert flipped
    assert lost
    shard = flipped / "patch" / "c.0.0.0.0"
    content = bytearray(shard.read_bytes())
    content[40] ^= 4
    shard.write_bytes(content)
    (lost / "frame" / "c.0.0").unlink()
    report = pack(tmp_path)
    assert (report.num_packed, set(report.damaged)) == (2, {"a.mp4", "b/c.mp4"})
    assert {found.key for found in verify(tmp_path, deep=True).findings} == {"a.mp4", "b/c.mp4"}


def _pack_until(root: Path, fatal_call: int, place: str) -> None:
    """The body of a process that is killed at the n-th call of one of the functions that a pack is made with."""
    calls = 0
    module, name = (removal, "remove") if place == "remove" else (os, place)
    original = getattr(module, name)

    def die(*args: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == fatal_call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **named)

    setattr(module, name, die)
    pack(root)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "call"), [("fsync", 2), ("fsync", 9), ("rename", 1), ("rename", 3), ("remove", 2)])
def test_killed_packing_goes_on(tmp_path: Path, place: str, call: int) -> None:
    space = _fill(tmp_path / "cache")
    before = _read(tmp_path / "cache")
    process = PROCESSES.Process(target=_pack_until, args=(tmp_path / "cache", call, place))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    _assert_equal(before, _read(tmp_path / "cache"))
    assert bool(list((space.path / "tmp").iterdir())) == bool(inspect_cache(tmp_path / "cache").spaces[0].num_leftovers)
    pack(tmp_path / "cache")
    _assert_equal(before, _read(tmp_path / "cache"))
    assert list((space.path / "videos").rglob("*.zarr")) == []
    assert verify(tmp_path / "cache", deep=True).findings == []
    assert nothing_left(tmp_path / "cache")


@pytest.mark.parametrize("other", [pack, lambda root: convert(root, store="hdf5")])
def test_a_space_that_is_being_packed_or_converted_is_left_to_that(
    tmp_path: Path, other: Callable[[Path], object]
) -> None:
    """Two packings at a time made two packs of the same videos."""
    _fill(tmp_path)
    refused: list[str] = []

    def meanwhile(done: int, total: int, key: str) -> None:
        with pytest.raises(CacheError, match="being converted or packed") as caught:
            other(tmp_path)
        refused.append(str(caught.value))

    assert pack(tmp_path, on_progress=meanwhile).num_packs == len(refused) == 1
    assert pack(tmp_path).num_packed == 0


def test_a_moved_cache_finds_its_packs(tmp_path: Path) -> None:
    _fill(tmp_path / "here")
    pack(tmp_path / "here")
    before = _read(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    _assert_equal(before, _read(tmp_path / "there"))
