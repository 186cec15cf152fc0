"""Opening caches and reading rows: names, times, windows, workers, foreign codecs."""

import dataclasses
import multiprocessing
import pickle
import shutil
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import zarr

import qle
from qle.cache.index import load_index
from qle.cache.layout import COMMIT_FILE
from qle.cache.reader import Space, Video, list_videos
from qle.cache.records import CommitRecord, FileRecord
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.tools.convert import convert
from qle.cache.tools.pack import pack
from qle.cache.tools.verify import verify
from qle.cache.windows import MapPool, VideoFolder
from qle.cache.writer import VideoWriter
from qle.durable import hash_file
from qle.errors import CacheCorruptError, CacheError, CacheMismatchError, CacheMissingError
from tests import tiny_cache as tiny

KEYS = ("day 1/colon.mp4", "day 2/colon.mp4", "day 2/stomach.avi", "x" * 300 + ".mp4", "../../etc/passwd")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> SpaceFolder:
    space = create_space(tmp_path_factory.mktemp("reader") / "cache", tiny.tiny_spec())
    for seed, key in enumerate(KEYS):
        tiny.commit_video(space, key, store="hdf5" if seed % 2 else "zarr", num_rows=600 + seed, seed=seed)
    return space


@pytest.fixture
def space(folder: SpaceFolder) -> Space:
    return qle.open_cache(folder.path.parent).space()


def memory(key: str) -> np.ndarray:
    seed = KEYS.index(key)
    return tiny.tiny_values(600 + seed, seed)["patch"].astype(np.float16)


def test_a_space_is_a_mapping_of_keys(space: Space) -> None:
    assert list(space) == sorted(KEYS)
    assert len(space) == 5
    assert all(key in space for key in KEYS)
    assert "colon.mp4" not in space
    assert sorted(key for key, _ in list_videos(space.path)) == sorted(KEYS)
    assert space.record.name == "tiny-float16"


def test_videos_are_found_by_unique_parts_of_their_keys(space: Space) -> None:
    assert space.video("stomach.avi").key == space.video("stomach").key == "day 2/stomach.avi"
    assert space.video("day 1/colon").key == "day 1/colon.mp4"
    with pytest.raises(CacheMissingError, match=r"names 2 videos .*day 1/colon.mp4.*whole key"):
        space.video("colon")
    with pytest.raises(CacheMissingError, match=r"nearest: 'day 2/stomach.avi'"):
        space.video("day 2/stomack.avi")
    with pytest.raises(CacheMissingError, match=r"nearest: 'day 2/stomach.avi'"):
        space.video("sto")


def test_spaces_are_found_by_unique_beginnings(folder: SpaceFolder, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    for dtype in ("float16", "float32"):
        create_space(root, tiny.tiny_spec(dtype))
    cache = qle.open_cache(root)
    assert len(cache.spaces) == 2
    assert cache.space("tiny-float32").record.hashed == {"dtype": "float32"}
    with pytest.raises(CacheMissingError, match=r"several spaces fit; choose one of tiny-float16-\w+, tiny-float32-"):
        cache.space()
    with pytest.raises(CacheMissingError, match="no space begins with 'huge'"):
        cache.space("huge")


def test_what_is_no_cache_is_said(folder: SpaceFolder, tmp_path: Path) -> None:
    with pytest.raises(CacheMissingError, match="does not exist"):
        qle.open_cache(tmp_path / "nowhere")
    with pytest.raises(CacheMissingError, match="is no cache"):
        qle.open_cache(tmp_path)
    with pytest.raises(CacheMissingError, match="it is a space inside one: open"):
        qle.open_cache(folder.path)
    (tmp_path / "qle-cache.json").write_text('{"format": 9, "uuid": "u", "created": "2030-01-01T00:00:00Z"}')
    with pytest.raises(CacheMismatchError, match="install a newer qle"):
        qle.open_cache(tmp_path)


def test_times_become_rows(space: Space) -> None:
    video = space.video("stomach")
    assert video.pts[3] == 1.75
    assert video.rows(1.75, 3.25) == slice(3, 6)
    assert video.rows(1.8, 1.9) == slice(4, 4)
    assert video.rows(-5.0, 1e9) == slice(0, video.num_rows)
    assert video.rows(9.0, 3.0) == slice(18, 18)
    with pytest.raises(ValueError, match="read-only"):
        video.pts[0] = 0


def test_many_windows_go_into_one_buffer(space: Space, rng: np.random.Generator) -> None:
    windows = [(key, start, start + 16) for key in KEYS for start in rng.integers(0, 580, 8).tolist()]
    expected = np.stack([memory(key)[start:stop] for key, start, stop in windows])
    out = np.zeros((40, 16, 2, 2, 8), np.float32)
    space.prefetch("patch", windows)
    np.testing.assert_array_equal(space.read_windows("patch", windows), expected)
    assert space.read_windows("patch", windows, out) is out
    np.testing.assert_array_equal(out, expected)
    assert space.read_windows("patch", []).shape == (0, 0, 2, 2, 8)
    with pytest.raises(CacheError, match=r"has 3 rows, the first one 2"):
        space.read_windows("patch", [(KEYS[0], 0, 2), (KEYS[1], 0, 3)])
    with pytest.raises(CacheError, match="expected 0 <= start <= stop <= 600"):
        space.read_windows("patch", [(KEYS[0], 599, 601)])
    with pytest.raises(CacheMissingError, match="no stream 'patches'; it has patch, frame, pts, index, valid"):
        space.read_windows("patches", [(KEYS[0], 0, 2)])


def test_few_maps_are_enough(folder: SpaceFolder, rng: np.random.Generator) -> None:
    pool = MapPool(capacity=3)
    space = Space(folder, pool)
    kept = space.video(KEYS[0]).patch[500:520]
    for _ in range(50):
        key = KEYS[rng.integers(len(KEYS))]
        start = int(rng.integers(0, 590))
        np.testing.assert_array_equal(space.video(key).patch[start : start + 10], memory(key)[start : start + 10])
        assert len(pool) <= 3
    np.testing.assert_array_equal(kept, memory(KEYS[0])[500:520])


def read_all(space: Space, keys: tuple[str, ...]) -> None:
    for key in keys:
        assert np.array_equal(space.video(key).patch[:], memory(key))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_loader_workers_read_what_the_parent_reads(space: Space, method: str) -> None:
    read_all(space, KEYS[:2])  # maps are open, a lock exists
    worker = multiprocessing.get_context(method).Process(target=read_all, args=(space, KEYS))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0


@pytest.mark.slow
def test_a_fork_while_a_thread_reads_does_not_hang(space: Space) -> None:
    pool = space.video(KEYS[0])._pool
    with pool._lock:
        worker = multiprocessing.get_context("fork").Process(target=read_all, args=(space, KEYS))
        worker.start()
    worker.join(60)
    assert worker.exitcode == 0


def test_threads_share_a_space(space: Space) -> None:
    failures = []

    def read() -> None:
        try:
            read_all(space, KEYS)
        except AssertionError as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_video_that_another_thread_closes_at_this_moment_stays_good(folder: SpaceFolder) -> None:
    """Training reads ahead in a thread while validation walks through thousands of videos of the same space."""

    class ClosedMeanwhile(OrderedDict[str, Video]):
        def get(self, key: str, default: object = None) -> object:
            return self.pop(key, default)

    space = Space(folder)
    key = space.keys()[0]
    opened = space.video(key)
    space._open = ClosedMeanwhile(space._open)
    assert space.video(key) is opened


def test_videos_can_be_pickled(space: Space) -> None:
    video = space.video(KEYS[0])
    again: Video = pickle.loads(pickle.dumps(video))
    np.testing.assert_array_equal(again.patch[590:], memory(KEYS[0])[590:])


def test_rows_look_like_an_array(space: Space) -> None:
    patch = space.video(KEYS[0]).patch
    assert (len(patch), patch.shape, patch.dtype) == (600, (600, 2, 2, 8), np.float16)
    np.testing.assert_array_equal(patch[np.arange(600) % 2 == 1], memory(KEYS[0])[1::2])
    np.testing.assert_array_equal(patch[30:10], memory(KEYS[0])[30:10])
    assert np.asarray(patch, dtype=np.float32).dtype == np.float32
    for row in (600, -601):
        with pytest.raises(IndexError, match="of 600"):
            patch[row]


@pytest.mark.parametrize("index", [np.array([1.7]), np.array([True, False]), [[0, 1]], ["a"], np.array([1j])])
def test_rows_are_not_chosen_by_anything_else(space: Space, index: object) -> None:
    """A time in seconds where a row number belongs gave the row of its whole part."""
    with pytest.raises(IndexError, match="whole numbers"):
        space.video("stomach").frame[index]


def test_a_compressed_array_is_read_through_its_library(tmp_path: Path) -> None:
    """As an archive might hold it: another codec, and a record that says that nothing can be mapped."""
    space = create_space(tmp_path / "cache", tiny.tiny_spec())
    record = tiny.commit_video(space)
    folder = space.folder(tiny.KEY)
    group = zarr.open_group(folder, mode="a")
    values = group["patch"][:]
    del group["patch"]
    group.create_array("patch", data=values, chunks=(50, 2, 2, 8), compressors=zarr.codecs.ZstdCodec(level=1))
    files = [
        FileRecord(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, xxh3=hash_file(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != COMMIT_FILE
    ]
    streams = tuple(
        stream.model_copy(update={"raw": None}) if stream.name == "patch" else stream for stream in record.streams
    )
    changed: CommitRecord = record.model_copy(update={"files": tuple(files), "streams": streams})
    (folder / COMMIT_FILE).write_text(changed.to_json())
    video = qle.open_cache(tmp_path / "cache").space().video(tiny.KEY)
    np.testing.assert_array_equal(video.patch[500:530], values[500:530])
    windows = [(tiny.KEY, 3, 9), (tiny.KEY, 1090, 1096)]
    video_space = qle.open_cache(tmp_path / "cache").space()
    np.testing.assert_array_equal(video_space.read_windows("patch", windows)[1], values[1090:1096])


def test_a_shard_in_another_order_is_not_taken_for_rows(tmp_path: Path) -> None:
    """Same size, same numbers to zarr-python, but not where we would look for them."""
    space = create_space(tmp_path / "cache", tiny.tiny_spec())
    tiny.commit_video(space)
    folder = space.folder(tiny.KEY)
    path = folder / "patch" / "c.0.0.0.0"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1  # in the index
    path.write_bytes(content)
    with pytest.raises(CacheCorruptError, match="index is not that of plain rows"):
        qle.open_cache(tmp_path / "cache").space().video(tiny.KEY).patch[0]


def test_a_video_that_was_replaced_is_not_mixed_with_its_successor(tmp_path: Path) -> None:
    space = create_space(tmp_path / "cache", tiny.tiny_spec())
    tiny.commit_video(space)
    video = qle.open_cache(tmp_path / "cache").space().video(tiny.KEY)
    before = video.patch[0:4]
    with VideoWriter.open(space, tiny.KEY, tiny.tiny_plan(), tiny.tiny_source(1), replace=True) as writer:
        tiny.fill(writer, tiny.tiny_values(seed=1))
        writer.commit()
    np.testing.assert_array_equal(video.patch[0:4], before)  # the map of the old shard lives on
    with pytest.raises(CacheMismatchError, match="was replaced or removed after it was opened"):
        video.patch[600:604]  # the other shard has never been opened
    fresh = qle.open_cache(tmp_path / "cache").space().video(tiny.KEY)
    np.testing.assert_array_equal(fresh.frame[:], tiny.tiny_values(seed=1)["frame"])


def test_a_refreshed_space_reads_the_new_version_and_not_old_maps(tmp_path: Path) -> None:
    """Maps were kept by path: after a refresh the new record met the bytes of the old film."""
    folder = create_space(tmp_path, tiny.tiny_spec())
    tiny.commit_video(folder, num_rows=5, seed=1)
    space = Space(folder)
    old = space.video(tiny.KEY).patch[:]
    with VideoWriter.open(
        folder, tiny.KEY, tiny.tiny_plan(5), tiny.tiny_source(2), replace=True, durability="none"
    ) as writer:
        tiny.fill(writer, tiny.tiny_values(5, 2))
        writer.commit()
    space.refresh()
    new = space.video(tiny.KEY).patch[:]
    np.testing.assert_array_equal(new, tiny.tiny_values(5, 2)["patch"].astype(np.float16))
    assert not np.array_equal(new, old)


def test_workers_keep_the_limit_on_maps(folder: SpaceFolder) -> None:
    """An empty pool has length 0, which is not the same as no pool."""
    copy = pickle.loads(pickle.dumps(Space(folder, MapPool(capacity=3))))
    for key in KEYS:
        for stream in ("patch", "frame", "pts"):
            copy.video(key).rows_of(stream)[:]
    assert len(copy._pool) == 3


def test_strange_folders_among_the_videos_hide_no_other(tmp_path: Path) -> None:
    """A copy made by hand sent the look-up in circles, and a name that is no text ended every listing."""
    folder = create_space(tmp_path, tiny.tiny_spec())
    long = "x" * 300 + ".mp4"
    for key in ("a", "b", long):
        tiny.commit_video(folder, key, num_rows=5)
    place, lost = folder.folder("a"), folder.folder(long)
    assert place
    assert lost
    shutil.copytree(place, place.with_name("a copy.zarr"))
    place.with_name("%FF.zarr").mkdir()
    (lost / COMMIT_FILE).unlink()
    space = Space(folder)
    assert space.keys() == ("a", "b")
    assert [space.video(key).num_rows for key in space] == [5, 5]
    with pytest.raises(CacheMissingError):
        space.video("a copy")
    problems = [problem for problem in load_index(folder).texts("problem") if problem]
    assert len(problems) == len(verify(tmp_path).findings) == 3


def test_a_video_that_goes_after_it_was_listed_is_missing(tmp_path: Path) -> None:
    folder = create_space(tmp_path, tiny.tiny_spec())
    tiny.commit_video(folder, num_rows=5)
    space = Space(folder)
    (key,) = space.keys()
    place = folder.folder(key)
    assert place
    shutil.rmtree(place)
    with pytest.raises(CacheMissingError, match="was removed after"):
        space.video(key)


def test_a_space_that_was_half_deleted_is_not_listed(tmp_path: Path) -> None:
    """Killed between the rename that takes a space away and the removal of its description."""
    kept, gone = (create_space(tmp_path, tiny.tiny_spec(dtype)) for dtype in ("float16", "float32"))
    gone.path.rename(tmp_path / ".qle-removed-0123")
    assert qle.open_cache(tmp_path).spaces == (kept.path.name,)


def _convert_and_pack(root: Path) -> None:
    for store in ("hdf5", "zarr", "hdf5", "zarr", "hdf5"):
        convert(root, store=store)  # type: ignore[arg-type]
    pack(root)


@pytest.mark.slow
def test_readers_find_their_videos_while_these_change_their_format(tmp_path: Path) -> None:
    """A video that had just been converted or packed looked damaged or missing to whoever was opening it."""
    folder = create_space(tmp_path, tiny.tiny_spec())
    for number in range(3):
        tiny.commit_video(folder, str(number), num_rows=5, seed=number)
    process = tiny.PROCESSES.Process(target=_convert_and_pack, args=(tmp_path,))
    process.start()
    num_looks = 0
    while process.is_alive() or not num_looks:
        for key in ("0", "1", "2"):
            assert Space(folder).video(key).num_rows == 5
            num_looks += 1
    process.join()
    assert process.exitcode == 0


def test_videos_that_share_an_array_begin_at_their_first_row(tmp_path: Path) -> None:
    """The record of a part of an array, as many short videos in one have it."""
    space = create_space(tmp_path / "cache", tiny.tiny_spec())
    whole = tiny.commit_video(space)
    streams = tuple(
        stream.model_copy(
            update={"shape": (500, *stream.shape[1:]), "raw": stream.raw.model_copy(update={"first_row": 450})}
        )
        for stream in whole.streams
    )
    part = whole.model_copy(update={"streams": streams, "num_rows": 500})
    video = Video(VideoFolder.at(space.folder(tiny.KEY)), part, MapPool())
    expected = tiny.tiny_values()["patch"].astype(np.float16)[450:950]
    np.testing.assert_array_equal(video.patch[:], expected)
    np.testing.assert_array_equal(video.patch[55:70], expected[55:70])
    np.testing.assert_array_equal(video.pts, tiny.tiny_plan().pts_s[450:950])


def test_a_whole_name_of_a_space_goes_before_longer_names_that_begin_with_it(tmp_path: Path) -> None:
    spaces = {
        name: create_space(tmp_path, dataclasses.replace(tiny.tiny_spec(), name=name, hashed={"made": made}))
        for made, name in enumerate(("tiny-float16", "tiny-float16-grid7"))
    }
    cache = qle.open_cache(tmp_path)
    for name, space in spaces.items():
        assert cache.space(name).path == cache.space(space.path.name).path == space.path
    with pytest.raises(CacheMissingError, match="several"):
        cache.space("tiny")
    create_space(tmp_path, dataclasses.replace(tiny.tiny_spec(), name="tiny-float16", hashed={"made": 3}))
    with pytest.raises(CacheMissingError, match="several"):
        cache.space("tiny-float16")
