"""Facts about a cache and a video agree with what is on the disk."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qle.cache.reader import open_cache
from qle.cache.records import ErrorRecord
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.tools import inspect as inspect_module
from qle.cache.tools.inspect import find_video, inspect_cache, inspect_video, token_strip
from qle.cache.tools.pack import pack
from qle.cache.writer import VideoWriter
from qle.errors import CacheMissingError
from tests.tiny_cache import commit_video, fill, tiny_plan, tiny_source, tiny_spec, tiny_values


@pytest.fixture
def space(tmp_path: Path) -> SpaceFolder:
    space = create_space(tmp_path, tiny_spec())
    commit_video(space, "a.mp4", num_rows=600)
    commit_video(space, "b.mp4", num_rows=20, store="hdf5")
    return space


def test_facts_of_a_cache(space: SpaceFolder, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    for key in ("a.mp4", "broken.mp4", "broken.mp4"):
        space.errors.append(ErrorRecord(key=key, kind="decode", message="no", created=now))
    facts = inspect_cache(tmp_path)
    (found,) = facts.spaces
    assert found.states == {"done": 2, "damaged": 0, "failed": 1, "claimed": 0}
    assert (found.num_rows, found.num_valid) == (620, 540 + 18)
    assert found.hours == pytest.approx((599 / 2 + 19 / 2) / 3600)
    on_disk = sum(
        file.stat().st_size for file in space.path.glob("videos/**/*") if file.is_file() and file.name != "_COMMIT.json"
    )
    assert found.disk_bytes == on_disk == facts.disk_bytes
    assert found.token_bytes == 620 * (2 * 2 * 8 * 2 + 8 * 2 + 8 + 8 + 1)
    patch = found.streams[0]
    assert (patch.name, patch.shape, patch.dtype) == ("patch", (2, 2, 8), "float16")
    assert found.provenance == {"dtype": "float16"}


def test_facts_of_packed_videos(space: SpaceFolder, tmp_path: Path) -> None:
    before = inspect_cache(tmp_path).spaces[0]
    pack(tmp_path)
    after = inspect_cache(tmp_path).spaces[0]
    assert (after.num_packed, after.num_rows, after.states) == (2, before.num_rows, before.states)
    assert after.hours == pytest.approx(before.hours)
    on_disk = sum(
        file.stat().st_size for file in space.path.glob("packs/*/**/*") if file.is_file() and file.name != "_PACK.json"
    )
    assert after.disk_bytes == on_disk


@pytest.mark.parametrize("block_bytes", [1, 1000, 1 << 30])
def test_statistics_do_not_depend_on_the_blocks(
    space: SpaceFolder, tmp_path: Path, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect_module, "BLOCK_BYTES", block_bytes)
    (facts,) = inspect_video(tmp_path, "b")
    values = tiny_values(20)["patch"].astype(np.float16).astype(np.float64)
    (patch, frame) = facts.streams
    assert (patch.name, frame.name, patch.shape) == ("patch", "frame", (20, 2, 2, 8))
    assert (patch.minimum, patch.maximum, patch.num_not_finite) == (values.min(), values.max(), 0)
    assert patch.mean == pytest.approx(values.mean(), abs=1e-12)
    assert patch.std == pytest.approx(values.std(), rel=1e-12)
    assert (facts.key, facts.store, facts.num_rows, facts.is_packed) == ("b.mp4", "hdf5", 20, False)


def test_numbers_that_are_not_finite_are_counted_and_left_out(tmp_path: Path) -> None:
    space = create_space(tmp_path, tiny_spec("float32"))
    values = tiny_values(4)
    values["patch"][1, 0, 0, :3] = (np.nan, np.inf, -np.inf)
    values["patch"][2] = np.nan
    with VideoWriter.open(space, "x.mp4", tiny_plan(4), tiny_source(), durability="none") as writer:
        fill(writer, values)
        writer.commit()
    patch = inspect_video(tmp_path, "x.mp4")[0].streams[0]
    finite = values["patch"][np.isfinite(values["patch"])]
    assert patch.num_not_finite == 3 + 32
    assert patch.mean == pytest.approx(float(finite.mean(dtype=np.float64)))


def test_a_video_in_several_spaces(space: SpaceFolder, tmp_path: Path) -> None:
    other = create_space(tmp_path, tiny_spec("int8"))
    commit_video(other, "a.mp4", num_rows=5)
    assert [facts.num_rows for facts in inspect_video(tmp_path, "a.mp4")] == [600, 5]
    assert [facts.num_rows for facts in inspect_video(tmp_path, "a.mp4", ["tiny-int8"])] == [5]
    with pytest.raises(CacheMissingError, match=r"no video 'c\.mp4'"):
        inspect_video(tmp_path, "c.mp4")


def test_strip_shows_times_side_by_side(space: SpaceFolder, tmp_path: Path) -> None:
    (_, video), = find_video(tmp_path, "a.mp4")  # fmt: skip
    with Image.open(token_strip(video, tmp_path.parent / "strip.png", num_maps=5)) as sheet:
        assert sheet.size == (5 * (112 + 4) + 4, 112 + 22)
        assert len(sheet.getcolors(100_000) or []) > 20


def test_index_is_not_needed(space: SpaceFolder, tmp_path: Path) -> None:
    before = inspect_cache(tmp_path)
    (space.path / "index.parquet").unlink()
    for name in ("runs", "claims", "tmp"):
        shutil.rmtree(space.path / name)
    assert inspect_cache(tmp_path) == before
    assert open_cache(tmp_path).space().keys() == ("a.mp4", "b.mp4")
