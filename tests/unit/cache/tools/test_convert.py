"""Converted tokens are the same numbers, as exactly as their new type allows, and times never change."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qle.cache.claims import WHOLE_SPACE, Claims
from qle.cache.layout import video_folder
from qle.cache.reader import Space, Video, open_cache
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.tools import rewrite
from qle.cache.tools.convert import _bring_in, convert
from qle.cache.tools.pack import pack
from qle.cache.tools.rewrite import pool_grid
from qle.cache.tools.verify import verify
from qle.errors import CacheError, ConfigError
from qle.types import StoreDtype, StoreKind
from tests.tiny_cache import PROCESSES, commit_video, nothing_left, tiny_spec

pytestmark = pytest.mark.slow


def _fill(root: Path, dtype: str = "float16", store: StoreKind = "zarr") -> SpaceFolder:
    space = create_space(root, tiny_spec(dtype))
    for number, key in enumerate(("a.mp4", "b/c.mp4")):
        commit_video(space, key, num_rows=600 + number, seed=number, store=store)
    return space


def _videos(root: Path, space: str | None = None) -> list[Video]:
    opened = open_cache(root).space(space)
    return [opened.video(key) for key in opened]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
@pytest.mark.parametrize(("store", "wanted"), [("zarr", "hdf5"), ("hdf5", "zarr")])
def test_another_format_is_the_same_to_the_bit(tmp_path: Path, dtype: str, store: StoreKind, wanted: StoreKind) -> None:
    space = _fill(tmp_path, dtype, store)
    before = [
        {name: video.read(name, 0, video.num_rows, raw=True) for name in video.streams} for video in _videos(tmp_path)
    ]
    report = convert(tmp_path, store=wanted)
    assert (report.space, report.num_converted, report.damaged) == (space.path.name, 2, {})
    for video, streams in zip(_videos(tmp_path), before, strict=True):
        assert video.record.store == wanted
        for name, values in streams.items():
            np.testing.assert_array_equal(video.read(name, 0, video.num_rows, raw=True), values)
    assert len(list(space.path.glob(f"videos/*/*.{store}"))) == 0
    assert verify(tmp_path, deep=True).findings == []
    assert convert(tmp_path, store=wanted).num_already == 2


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0), ("bfloat16", 2**-8), ("int8", 2**-6)])
def test_another_dtype_is_a_new_space(tmp_path: Path, dtype: StoreDtype, tolerance: float) -> None:
    space = _fill(tmp_path)
    report = convert(tmp_path, dtype=dtype)
    derived = open_cache(tmp_path).space(report.space)
    assert derived.record.hashed["derived_from"] == space.record.hash
    assert derived.record.hash != space.record.hash
    for old, new in zip(_videos(tmp_path, space.path.name), _videos(tmp_path, report.space), strict=True):
        peak = np.abs(old.patch[:]).max(axis=-1, keepdims=True)
        assert (np.abs(new.patch[:] - old.patch[:]) <= tolerance * peak).all()
        for name in ("pts", "index", "valid"):
            np.testing.assert_array_equal(new.rows_of(name)[:], old.rows_of(name)[:])
        assert (new.key, new.record.source) == (old.key, old.record.source)
    assert convert(tmp_path, space.path.name, dtype=dtype).num_already == 2


def test_int8_becomes_float_without_scales(tmp_path: Path) -> None:
    _fill(tmp_path, "int8")
    (name,) = open_cache(tmp_path).spaces
    report = convert(tmp_path, dtype="float32")
    old, new = _videos(tmp_path, name)[0], _videos(tmp_path, report.space)[0]
    assert "scale" not in new.streams
    np.testing.assert_array_equal(old.patch[:], new.patch[:])


def test_grid_is_the_mean_of_its_cells(tmp_path: Path) -> None:
    space = _fill(tmp_path)
    report = convert(tmp_path, grid=1, target=tmp_path / "other")
    old, new = _videos(tmp_path, space.path.name)[1], _videos(tmp_path / "other")[1]
    assert new.patch.shape == (601, 1, 1, 8)
    np.testing.assert_allclose(new.patch[:][:, 0, 0], old.patch[:].astype(np.float32).mean((1, 2)), atol=1e-3)
    np.testing.assert_array_equal(new.frame[:], old.frame[:])
    assert open_cache(tmp_path / "other").space(report.space).record.hashed["tokens"]["grid"] == 1


@pytest.mark.parametrize(("size", "grid"), [((14, 14), 7), ((14, 16), 5), ((3, 4), 3)])
def test_pooling_is_that_of_extraction(size: tuple[int, int], grid: int, rng: np.random.Generator) -> None:
    patch = rng.standard_normal((2, *size, 5)).astype(np.float32)
    import torch  # not by the processes that are killed here: it takes them two seconds
    import torch.nn.functional as F

    maps = torch.from_numpy(patch).permute(0, 3, 1, 2)
    expected = F.adaptive_avg_pool2d(maps, (grid, grid)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(pool_grid(patch, grid, grid), expected, atol=1e-6)


@pytest.mark.parametrize("wanted", [{"store": "hdf5"}, {"dtype": "float32"}])
def test_a_flipped_bit_is_not_converted(tmp_path: Path, wanted: dict[str, Any]) -> None:
    """It was, and the new hash fitted it: nothing could find the damage any more."""
    space = _fill(tmp_path)
    folder = space.folder("a.mp4")
    assert folder
    shard = folder / "patch" / "c.1.0.0.0"
    content = bytearray(shard.read_bytes())
    content[40] ^= 4
    shard.write_bytes(content)
    report = convert(tmp_path, **wanted)
    assert (report.num_converted, list(report.damaged)) == (1, ["a.mp4"])
    assert [found.key for found in verify(tmp_path, deep=True).findings] == ["a.mp4"]


def test_two_conversions_at_once_lose_nothing(tmp_path: Path) -> None:
    """The later one took a video away that the earlier one had just brought in and had deleted the original of."""
    space = _fill(tmp_path)
    with Claims(space) as claims:
        claims.try_acquire(WHOLE_SPACE)
        with pytest.raises(CacheError, match="just being converted"):
            convert(tmp_path, store="hdf5")
    assert convert(tmp_path, store="hdf5").num_converted == 2
    made = create_space(space.path / "tmp", space.record.spec)  # what an earlier one, that was long frozen, would bring
    commit_video(made, "a.mp4", num_rows=600, store="hdf5")
    target = video_folder(space.path, "a.mp4", "hdf5")
    before = os.stat(target).st_ino
    _bring_in(video_folder(made.path, "a.mp4", "hdf5"), target, "a.mp4", space)
    assert os.stat(target).st_ino == before
    (target / "tokens.h5").unlink()
    _bring_in(video_folder(made.path, "a.mp4", "hdf5"), target, "a.mp4", space)
    assert Space(space).video("a.mp4").num_rows == 600


def test_packed_videos_come_out_single(tmp_path: Path) -> None:
    space = _fill(tmp_path)
    patch = _videos(tmp_path)[0].patch[:]
    pack(tmp_path)
    report = convert(tmp_path, space.path.name, dtype="float32")
    np.testing.assert_array_equal(_videos(tmp_path, report.space)[0].patch[:], patch)


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "nothing to convert"), ({"grid": 3}, "1 to the side"), ({"grid": 0}, "1 to the side")],
)
def test_nonsense_is_refused(tmp_path: Path, options: dict[str, int], message: str) -> None:
    _fill(tmp_path)
    with pytest.raises(ConfigError, match=message):
        convert(tmp_path, **options)  # type: ignore[arg-type]
    assert len(open_cache(tmp_path).spaces) == 1


@pytest.mark.parametrize("options", [{"dtype": "int8"}, {"grid": 1}, {"dtype": "float32", "store": "hdf5"}])
def test_the_same_command_goes_on_where_its_own_result_stands_beside(tmp_path: Path, options: dict[str, Any]) -> None:
    """After a kill, or for videos that came later, the command without --space said that there were several spaces."""
    space = _fill(tmp_path)
    report = convert(tmp_path, **options)
    commit_video(space, "later.mp4", num_rows=5)
    again = convert(tmp_path, **options)
    assert (again.space, again.num_converted, again.num_already) == (report.space, 1, 2)
    with pytest.raises(ConfigError, match="several spaces"):  # here it is open which one is meant
        convert(tmp_path, dtype="bfloat16")


def test_several_spaces_need_a_choice(tmp_path: Path) -> None:
    _fill(tmp_path)
    _fill(tmp_path, "float32")
    with pytest.raises(ConfigError, match="choose one with --space"):
        convert(tmp_path, store="hdf5")


def _convert_until(root: Path, step: str, count: int) -> None:
    """The body of a process that is killed the n-th time that the writer gets to a step."""
    seen = 0
    original = rewrite.VideoWriter.open

    def die(name: str) -> None:
        nonlocal seen
        seen += name == step
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)

    rewrite.VideoWriter.open = lambda *args, **named: original(*args, **named, on_step=die)  # type: ignore[method-assign]
    convert(root, store="hdf5")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "count"), [("arrays_created", 2), ("record_written", 1), ("renamed", 1), ("cleaned", 2)]
)
def test_killed_conversion_goes_on(tmp_path: Path, step: str, count: int) -> None:
    space = _fill(tmp_path)
    before = {video.key: video.patch[:].tobytes() for video in _videos(tmp_path)}
    process = PROCESSES.Process(target=_convert_until, args=(tmp_path, step, count))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert {video.key: video.patch[:].tobytes() for video in _videos(tmp_path)} == before
    convert(tmp_path, store="hdf5")
    assert {video.key: video.patch[:].tobytes() for video in _videos(tmp_path)} == before
    assert {video.record.store for video in _videos(tmp_path)} == {"hdf5"}
    assert len(list(space.path.glob("videos/*/*.zarr"))) == 0
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("wanted", ["zarr", "hdf5"])
def test_two_formats_left_by_a_kill_become_one(tmp_path: Path, wanted: StoreKind) -> None:
    """Killed between the coming of the new version and the going of the old one."""
    space = _fill(tmp_path)
    old = space.folder("a.mp4")
    assert old is not None
    shutil.copytree(old, tmp_path / "aside")
    convert(tmp_path, store="hdf5")
    shutil.move(tmp_path / "aside", old)
    convert(tmp_path, store=wanted)
    assert len(list(space.path.glob("videos/*/*"))) == 2
    assert {video.record.store for video in _videos(tmp_path)} == {wanted}
