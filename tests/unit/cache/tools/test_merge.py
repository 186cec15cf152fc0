"""Merging unites equal spaces, overwrites nothing, and goes on after a kill."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from qle.cache.index import load_index
from qle.cache.layout import video_folder
from qle.cache.packs import pack_folders
from qle.cache.reader import open_cache
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.tools import merge as merge_module
from qle.cache.tools.merge import Link, merge
from qle.cache.tools.pack import pack
from qle.cache.tools.prune import plan_prune, prune
from qle.cache.tools.verify import verify
from qle.errors import ConfigError
from tests.tiny_cache import PROCESSES, commit_video, contents, nothing_left, tiny_spec


def _cache(root: Path, **seeds: int) -> SpaceFolder:
    space = create_space(root, tiny_spec())
    for name, seed in seeds.items():
        commit_video(space, f"{name}.mp4", num_rows=4 + seed, seed=seed)
    return space


@pytest.mark.parametrize("link", ["copy", "hard"])
def test_merged_videos_are_the_same_to_the_bit(tmp_path: Path, link: Link) -> None:
    one, two = _cache(tmp_path / "one", a=1, b=2), _cache(tmp_path / "two", c=3)
    commit_video(create_space(tmp_path / "two", tiny_spec("float32")), "d.mp4", num_rows=5)
    report = merge([tmp_path / "one", tmp_path / "two"], tmp_path / "all", link=link)
    assert (report.num_merged, report.conflicts, report.damaged) == (4, [], {})
    merged = open_cache(tmp_path / "all")
    assert merged.spaces == open_cache(tmp_path / "two").spaces
    space = merged.space("tiny-float16")
    assert space.keys() == ("a.mp4", "b.mp4", "c.mp4")
    for source, key in ((one, "a.mp4"), (one, "b.mp4"), (two, "c.mp4")):
        folder = source.folder(key)
        assert folder is not None
        assert contents(folder) == contents(space.video(key).folder)
        is_shared = os.path.samefile(folder / "zarr.json", space.video(key).folder / "zarr.json")
        assert is_shared == (link == "hard")
    assert verify(tmp_path / "all", deep=True).findings == []
    assert merge([tmp_path / "one", tmp_path / "two"], tmp_path / "all").num_already == 4


def test_conflicts_are_reported_and_not_overwritten(tmp_path: Path) -> None:
    _cache(tmp_path / "one", a=1)
    _cache(tmp_path / "two", a=2, b=3)
    report = merge([tmp_path / "two"], tmp_path / "one")
    (conflict,) = report.conflicts
    assert (conflict.key, conflict.cache) == ("a.mp4", str(tmp_path / "two"))
    assert "1001 bytes" in conflict.ours
    assert "1002 bytes" in conflict.theirs
    assert report.num_merged == 1
    assert open_cache(tmp_path / "one").space().video("a.mp4").num_rows == 5


def test_damaged_videos_stay_behind(tmp_path: Path) -> None:
    space = _cache(tmp_path / "one", a=1, b=2, c=3)
    folders = [space.folder(f"{name}.mp4") for name in "ab"]
    assert folders[0]
    assert folders[1]
    (folders[0] / "patch" / "c.0.0.0.0").unlink()
    shard = folders[1] / "frame" / "c.0.0"
    shard.write_bytes(bytes(shard.stat().st_size))  # the right size
    report = merge([tmp_path / "one"], tmp_path / "all")
    assert set(report.damaged) == {"a.mp4", "b.mp4"}
    assert open_cache(tmp_path / "all").space().keys() == ("c.mp4",)
    assert os.listdir(tmp_path / "all" / space.path.name / "tmp") == []


def test_a_cache_is_not_merged_into_itself(tmp_path: Path) -> None:
    _cache(tmp_path / "one", a=1)
    with pytest.raises(ConfigError, match="both source and target"):
        merge([tmp_path / "one"], tmp_path / "x" / ".." / "one")


def test_packs_go_over_whole_or_video_by_video(tmp_path: Path) -> None:
    space = _cache(tmp_path / "one", a=1, b=2)
    pack(tmp_path / "one")
    assert merge([tmp_path / "one"], tmp_path / "all").num_merged == 2
    (packed,) = pack_folders(tmp_path / "all" / space.path.name)
    assert packed.name == pack_folders(space.path)[0].name
    _cache(tmp_path / "two", a=9)
    report = merge([tmp_path / "one"], tmp_path / "two")
    assert (report.num_merged, [conflict.key for conflict in report.conflicts]) == (1, ["a.mp4"])
    for target in ("all", "two"):
        one, other = (open_cache(tmp_path / name).space().video("b.mp4") for name in ("one", target))
        np.testing.assert_array_equal(one.patch[:], other.patch[:])
        np.testing.assert_array_equal(one.pts, other.pts)
        assert one.record.source == other.record.source
    assert merge([tmp_path / "one"], tmp_path / "all").num_already == 2


@pytest.mark.parametrize("link", ["copy", "hard"])
@pytest.mark.parametrize("damage", ["short", "flipped"])
def test_a_damaged_pack_stops_no_merge(tmp_path: Path, damage: str, link: Link) -> None:
    """It ended the merge of everything that came after it."""
    space = _cache(tmp_path / "one", a=1, b=2)
    pack(tmp_path / "one")
    commit_video(space, "c.mp4", num_rows=3)
    (folder,) = pack_folders(space.path)
    shard = folder / "frame" / "c.0.0"
    content = bytearray(shard.read_bytes())
    content[0] ^= 1
    shard.write_bytes(content[:100] if damage == "short" else content)
    report = merge([tmp_path / "one"], tmp_path / "all", link=link)
    if (damage, link) == ("flipped", "hard"):  # links are not read
        assert (report.num_merged, report.damaged) == (3, {})
        return
    assert (report.num_merged, set(report.damaged)) == (1, {"a.mp4", "b.mp4"})
    assert open_cache(tmp_path / "all").space().keys() == ("c.mp4",)
    assert verify(tmp_path / "all", deep=True).findings == []


def test_a_folder_in_the_way_is_said_and_not_counted_as_merged(tmp_path: Path) -> None:
    _cache(tmp_path / "one", a=1, b=2)
    space = _cache(tmp_path / "all")
    in_the_way = video_folder(space.path, "a.mp4", "zarr")
    in_the_way.mkdir(parents=True)
    (in_the_way / "zarr.json").write_text("{}")
    report = merge([tmp_path / "one"], tmp_path / "all")
    assert (report.num_merged, list(report.damaged)) == (1, ["a.mp4"])
    prune(tmp_path / "all", plan_prune(tmp_path / "all", kinds=["damaged"]))
    assert merge([tmp_path / "one"], tmp_path / "all").num_merged == 1


def _merge_until(source: Path, target: Path, fatal_call: int) -> None:
    calls = 0
    original = merge_module.sync_tree

    def die(*args: object) -> None:
        nonlocal calls
        calls += 1
        original(*args)  # type: ignore[arg-type]
        if calls == fatal_call:
            os.kill(os.getpid(), signal.SIGKILL)

    merge_module.sync_tree = die  # type: ignore[assignment]
    merge([source], target)


@pytest.mark.slow
def test_killed_merge_goes_on(tmp_path: Path) -> None:
    space = _cache(tmp_path / "one", a=1, b=2, c=3)
    process = PROCESSES.Process(target=_merge_until, args=(tmp_path / "one", tmp_path / "all", 2))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    report = merge([tmp_path / "one"], tmp_path / "all")
    assert (report.num_merged, report.num_already) == (2, 1)
    assert verify(tmp_path / "all", deep=True).findings == []
    assert len(load_index(create_space(tmp_path / "all", space.record.spec))) == 3
    assert nothing_left(tmp_path / "all")
