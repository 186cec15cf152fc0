"""Pruning shows first, deletes what it showed, and leaves alone whatever lives."""

import os
import shutil
import time
from pathlib import Path

import pytest

from qle.cache.claims import Claims
from qle.cache.index import load_index
from qle.cache.layout import COMMIT_FILE, video_folder
from qle.cache.reader import open_cache
from qle.cache.records import SourceFacts
from qle.cache.sources import fingerprint
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.tools.pack import pack
from qle.cache.tools.prune import Kind, PruneItem, plan_prune, prune
from qle.cache.tools.verify import verify
from qle.cache.writer import VideoWriter
from qle.errors import ConfigError
from tests.tiny_cache import commit_video, fill, run, tiny_plan, tiny_spec, tiny_values, write_until

pytestmark = pytest.mark.slow


@pytest.fixture
def space(tmp_path: Path) -> SpaceFolder:
    """Three videos, each with its source file beside the cache."""
    space = create_space(tmp_path / "cache", tiny_spec())
    for key in ("a.mp4", "b.mp4", "c.mp4"):
        path = tmp_path / key
        path.write_bytes(key.encode())
        with VideoWriter.open(
            space, key, tiny_plan(4), SourceFacts(path=str(path), fingerprint=fingerprint(path)), durability="none"
        ) as writer:
            fill(writer, tiny_values(4))
            writer.commit()
    return space


def _folder(space: SpaceFolder, key: str) -> Path:
    folder = space.folder(key)
    assert folder is not None
    return folder


def _plan(space: SpaceFolder, *kinds: Kind, **options: float) -> list[PruneItem]:
    return plan_prune(space.path.parent, kinds=kinds, **options)  # type: ignore[arg-type]


def _age(path: Path, hours: float) -> None:
    for place in [path, *path.rglob("*")]:
        os.utime(place, (time.time() - hours * 3600,) * 2)


def _twins(space: SpaceFolder, aside: Path) -> dict[str, Path]:
    """One video in both formats, as a killed conversion leaves it."""
    commit_video(space, "twice.mp4", store="hdf5", num_rows=4)
    shutil.move(_folder(space, "twice.mp4"), aside)
    commit_video(space, "twice.mp4", num_rows=4)
    hdf5 = video_folder(space.path, "twice.mp4", "hdf5")
    shutil.move(aside, hdf5)
    return {"zarr": _folder(space, "twice.mp4"), "hdf5": hdf5}


def test_a_clean_cache_has_nothing_to_prune(space: SpaceFolder) -> None:
    assert _plan(space, "temp", "duplicates", "damaged", "stale", "orphaned") == []


def test_planning_deletes_nothing_and_pruning_just_that(space: SpaceFolder, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"another film")
    (_folder(space, "b.mp4") / "patch" / "c.0.0.0.0").unlink()
    (tmp_path / "c.mp4").unlink()
    for kind, key in (("stale", "a.mp4"), ("damaged", "b.mp4"), ("orphaned", "c.mp4")):
        (item,) = _plan(space, kind)  # type: ignore[arg-type]
        assert (item.kind, item.key, item.path) == (kind, key, _folder(space, key))
        assert item.size_bytes > 1000
    plan = _plan(space, "stale", "damaged")
    assert len(load_index(space)) == 3
    assert prune(space.path.parent, plan) == sum(item.size_bytes for item in plan)
    assert list(load_index(space).row_of_key) == ["c.mp4"]
    assert os.listdir(space.path / "tmp") == []
    assert prune(space.path.parent, plan) > 0  # once more, as after a kill: no error


def test_a_video_that_was_made_anew_since_the_plan_stays(space: SpaceFolder, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"another film")
    plan = _plan(space, "stale")
    _folder(space, "a.mp4").rename(tmp_path / "old")  # kept, so that its inode is not used again
    commit_video(space, "a.mp4", num_rows=9)
    prune(space.path.parent, plan)
    assert open_cache(space.path.parent).space().video("a.mp4").num_rows == 9


def test_unreadable_record_is_damaged(space: SpaceFolder) -> None:
    (_folder(space, "a.mp4") / COMMIT_FILE).write_text("{")
    (item,) = _plan(space, "damaged")
    assert item.key == "a.mp4"


def test_leftover_of_a_killed_process_goes_and_that_of_a_living_one_stays(space: SpaceFolder) -> None:
    root = space.path.parent
    assert run(write_until, root, "zarr", "file_closed") == -9
    writer = VideoWriter.open(
        space, "alive.mp4", tiny_plan(4), SourceFacts(path="x", fingerprint=fingerprint(root / "qle-cache.json"))
    )
    for path in (space.path / "tmp").iterdir():
        _age(path, 48)  # a long decode, or a laptop that slept
    plan = _plan(space, "temp")
    assert ["whose process is gone" in item.reason for item in plan] == [True]
    prune(root, plan)
    assert len(os.listdir(space.path / "tmp")) == 1
    fill(writer, tiny_values(4))
    writer.commit()
    assert "alive.mp4" in open_cache(root).space()


def test_unknown_temp_folders_go_when_they_are_old(space: SpaceFolder) -> None:
    stranger = space.path / "tmp" / "0123456789abcdef.elsewhere.1.2"
    (stranger / "video").mkdir(parents=True)
    (stranger / "video" / "file").write_bytes(b"123")
    assert _plan(space, "temp") == []
    _age(stranger, 30)
    (item,) = _plan(space, "temp")
    assert item.path == stranger
    assert _plan(space, "temp", idle_hours=48) == []


def test_claims_go_when_nobody_refreshes_them(space: SpaceFolder) -> None:
    with Claims(space) as claims:
        claims.try_acquire("d.mp4")
        assert _plan(space, "temp") == []
    (space.path / "claims" / "old.lease").write_text("x")
    _age(space.path / "claims" / "old.lease", 2)
    (item,) = _plan(space, "temp")
    assert item.path.name == "old.lease"
    prune(space.path.parent, [item])
    assert os.listdir(space.path / "claims") == []


def test_the_copy_that_no_reader_takes_is_a_duplicate(space: SpaceFolder, tmp_path: Path) -> None:
    _twins(space, tmp_path / "aside")
    (item,) = _plan(space, "duplicates")
    assert item.path.suffix == ".hdf5"
    prune(space.path.parent, [item])
    assert verify(space.path.parent, deep=True).findings == []
    assert len(load_index(space)) == 4


def test_a_packed_video_that_also_stands_alone_is_a_duplicate(space: SpaceFolder, tmp_path: Path) -> None:
    shutil.copytree(_folder(space, "a.mp4"), tmp_path / "aside")
    pack(space.path.parent)
    target = video_folder(space.path, "a.mp4", "zarr")
    shutil.copytree(tmp_path / "aside", target)
    (item,) = _plan(space, "duplicates")
    assert item.path == target
    prune(space.path.parent, [item])
    assert open_cache(space.path.parent).space().video("a.mp4").num_rows == 4


@pytest.mark.parametrize("missing", [COMMIT_FILE, "patch/c.0.0.0.0"])
def test_the_good_one_of_two_formats_outlives_the_damaged_one(space: SpaceFolder, tmp_path: Path, missing: str) -> None:
    """The Zarr copy, which readers look for first, is damaged: pruning used to delete both."""
    twins = _twins(space, tmp_path / "aside")
    (twins["zarr"] / missing).unlink()
    plan = _plan(space, "duplicates", "damaged")
    assert [(item.kind, item.path) for item in plan] == [("damaged", twins["zarr"])]
    prune(space.path.parent, plan)
    assert open_cache(space.path.parent).space().video("twice.mp4").folder == twins["hdf5"]


def test_a_pack_stays_while_a_single_copy_is_damaged(space: SpaceFolder) -> None:
    root = space.path.parent
    pack(root)
    for key in ("a.mp4", "b.mp4", "c.mp4"):
        commit_video(space, key, num_rows=7, seed=5)
    (_folder(space, "b.mp4") / "patch" / "c.0.0.0.0").unlink()
    plan = _plan(space, "duplicates", "damaged")
    assert [(item.kind, item.key) for item in plan] == [("damaged", "b.mp4")]
    prune(root, plan)
    assert open_cache(root).space().video("b.mp4").num_rows == 4  # the packed one


def test_a_part_of_a_film_is_not_stale(space: SpaceFolder, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    source = SourceFacts(path=str(path), fingerprint=fingerprint(path), start_s=1.5, end_s=4.0)
    with VideoWriter.open(space, "a.mp4@1.5", tiny_plan(4), source, durability="none") as writer:
        fill(writer, tiny_values(4))
        writer.commit()
    assert _plan(space, "stale", "damaged", "orphaned") == []


def test_a_relative_source_is_not_called_gone(space: SpaceFolder) -> None:
    """It began in the folder where the extraction was started, which is not the one where pruning is."""
    source = SourceFacts(path="films/d.mp4", fingerprint=fingerprint(space.path / "space.json"))
    with VideoWriter.open(space, "d.mp4", tiny_plan(4), source, durability="none") as writer:
        fill(writer, tiny_values(4))
        writer.commit()
    assert _plan(space, "orphaned") == []


def test_a_pack_that_nobody_reads_goes(space: SpaceFolder) -> None:
    root = space.path.parent
    pack(root)
    for key in ("a.mp4", "b.mp4"):
        commit_video(space, key, num_rows=7, seed=5)
    assert _plan(space, "duplicates") == []  # c.mp4 is in the pack alone
    commit_video(space, "c.mp4", num_rows=7, seed=5)
    (item,) = _plan(space, "duplicates")
    prune(root, [item])
    assert list((space.path / "packs").iterdir()) == []
    assert [open_cache(root).space().video(key).num_rows for key in ("a.mp4", "b.mp4", "c.mp4")] == [7, 7, 7]


def test_one_of_two_packs_of_the_same_videos_goes(space: SpaceFolder) -> None:
    root = space.path.parent
    pack(root)
    (first,) = (space.path / "packs").iterdir()
    second = first.with_name("pack-z")
    shutil.copytree(first, second)
    (item,) = _plan(space, "temp", "duplicates", "damaged", "stale", "orphaned")
    assert (item.kind, item.path) == ("duplicates", second)
    prune(root, [item])
    assert [open_cache(root).space().video(key).num_rows for key in ("a.mp4", "b.mp4", "c.mp4")] == [4, 4, 4]


def test_a_space_goes_by_its_name_alone(space: SpaceFolder) -> None:
    root = space.path.parent
    other = create_space(root, tiny_spec("float32"))
    commit_video(other, "a.mp4", num_rows=4)
    with pytest.raises(ConfigError, match="names"):
        plan_prune(root, kinds=["space"])
    plan = plan_prune(root, kinds=["space"], spaces=["tiny-float32"])
    assert [(item.kind, item.space) for item in plan] == [("space", other.path.name)]
    prune(root, plan)
    assert open_cache(root).spaces == (space.path.name,)
    assert not [name for name in os.listdir(root) if name.startswith(".")]


def test_a_space_that_was_half_deleted_is_no_space_and_goes(space: SpaceFolder) -> None:
    root = space.path.parent
    left = root / ".qle-removed-0123"
    (left / "videos").mkdir(parents=True)
    (left / "videos" / "x").write_bytes(b"123")
    (item,) = plan_prune(root)
    assert item.path == left
    prune(root, [item])
    assert not left.exists()


def test_deep_finds_flipped_bits_and_deletes_no_twin_of_a_damaged_video(space: SpaceFolder, tmp_path: Path) -> None:
    twins = _twins(space, tmp_path / "aside")
    for folder in (_folder(space, "b.mp4"), twins["zarr"]):
        shard = folder / "patch" / "c.0.0.0.0"
        content = bytearray(shard.read_bytes())
        content[40] ^= 4
        shard.write_bytes(content)
    assert _plan(space, "damaged") == []  # sizes cannot tell
    with pytest.raises(ConfigError, match="--damaged"):
        _plan(space, "temp", deep=True)
    plan = _plan(space, "temp", "duplicates", "damaged", deep=True)
    assert sorted((item.kind, item.key) for item in plan) == [("damaged", "b.mp4"), ("damaged", "twice.mp4")]
    assert all("content" in item.reason for item in plan)
    prune(space.path.parent, plan)
    assert verify(space.path.parent, deep=True).findings == []
    assert sorted(open_cache(space.path.parent).space().keys()) == ["a.mp4", "c.mp4", "twice.mp4"]
