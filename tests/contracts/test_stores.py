"""What every store promises: the same numbers as an array in memory, and a video that is there whole or not at all."""

import json
import os
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

import qle
from qle.cache.files.hdf5_store import FILE_NAME
from qle.cache.integrity import find_damage
from qle.cache.layout import STORE_SUFFIXES
from qle.cache.reader import Space, Video
from qle.cache.records import CommitRecord
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.writer import STEPS, VideoWriter
from qle.errors import CacheCorruptError, CacheError
from qle.types import StoreKind
from tests import tiny_cache as tiny

STORES = list(STORE_SUFFIXES)
DTYPES = ["float16", "bfloat16", "float32", "int8"]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> StoreKind:
    return request.param


@pytest.fixture
def space(tmp_path: Path) -> SpaceFolder:
    return create_space(tmp_path / "cache", tiny.tiny_spec())


def opened(space: SpaceFolder) -> Space:
    return qle.open_cache(space.path.parent).space(space.path.name)


def read_plainly(video: Video, name: str) -> np.ndarray:
    """A stream through the standard library of its format, as a stranger would read it."""
    if video.record.store == "zarr":
        return zarr.open_group(video.folder, mode="r")[name][:]
    with h5py.File(video.folder / FILE_NAME, "r") as file:
        return file[name][:]


@pytest.mark.parametrize("dtype", DTYPES)
def test_standard_readers_see_the_stored_bytes(tmp_path: Path, store: StoreKind, dtype: str) -> None:
    space = create_space(tmp_path, tiny.tiny_spec(dtype))
    tiny.commit_video(space, store=store)
    video = opened(space).video(tiny.KEY)
    for name, stream in video.streams.items():
        plain = read_plainly(video, name)
        assert plain.dtype == stream.stored_dtype
        np.testing.assert_array_equal(plain, video.read(name, 0, video.num_rows, raw=True))
    plan = tiny.tiny_plan()
    np.testing.assert_array_equal(video.pts, plan.pts_s)
    np.testing.assert_array_equal(video.index, plan.frame_index)
    np.testing.assert_array_equal(video.valid, plan.is_valid)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
def test_the_published_format_is_enough_for_a_reader(tmp_path: Path, store: StoreKind, dtype: str) -> None:
    """A reader written from docs/format.md alone: JSON, two divisions, plain reads."""
    space = create_space(tmp_path, tiny.tiny_spec(dtype))
    tiny.commit_video(space, store=store)
    (record_path,) = tmp_path.glob("*/videos/*/*/_COMMIT.json")
    record = json.loads(record_path.read_text())
    streams = {stream["name"]: stream for stream in record["streams"]}
    found = {}
    for name, stream in streams.items():
        raw, stored = stream["raw"], np.dtype({"bfloat16": "<u2"}.get(stream["dtype"], stream["dtype"]))
        row_bytes = int(np.prod(stream["shape"][1:], dtype=int)) * stored.itemsize
        rows = []
        for row in range(record["num_rows"]):
            number, inside = divmod(raw["first_row"] + row, raw["rows_per_file"])
            with open(record_path.parent / raw["path"].replace("{}", str(number)), "rb") as file:
                file.seek(raw["offset"] + inside * row_bytes)
                rows.append(np.frombuffer(file.read(row_bytes), stored).reshape(stream["shape"][1:]))
        found[name] = np.stack(rows)
    tokens = found["patch"]
    if dtype == "bfloat16":
        tokens = (tokens.astype(np.uint32) << 16).view(np.float32)
    elif dtype == "int8":
        tokens = tokens * found["scale"][..., None]
    video = opened(space).video(tiny.KEY)
    np.testing.assert_array_equal(tokens, video.patch[:])
    np.testing.assert_array_equal(found["pts"], video.pts)
    np.testing.assert_array_equal(found["valid"], video.valid)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zarr_hdf5_and_memory_agree(tmp_path: Path, dtype: str) -> None:
    space = create_space(tmp_path, tiny.tiny_spec(dtype))
    for store in STORES:
        tiny.commit_video(space, f"{store}.mp4", store=store)
    read = {store: opened(space).video(f"{store}.mp4") for store in STORES}
    memory = tiny.tiny_values()
    tolerance = {"float32": 0, "float16": 2e-3, "bfloat16": 2e-2, "int8": 2e-2}[dtype]
    for name, values in memory.items():
        np.testing.assert_array_equal(read["zarr"].rows_of(name)[:], read["hdf5"].rows_of(name)[:])
        np.testing.assert_allclose(read["zarr"].rows_of(name)[:], values, atol=tolerance)
    assert read["zarr"].patch.dtype == (np.float16 if dtype == "float16" else np.float32)


@pytest.mark.parametrize("num_rows", [1, 7, 64, 511, 512, 513, 1100])
def test_range_reads_equal_slices(
    space: SpaceFolder, store: StoreKind, num_rows: int, rng: np.random.Generator
) -> None:
    tiny.commit_video(space, store=store, num_rows=num_rows)
    video = opened(space).video(tiny.KEY)
    memory = tiny.tiny_values(num_rows)["patch"].astype(np.float16)
    np.testing.assert_array_equal(read_plainly(video, "patch"), memory)
    borders = [(0, num_rows), (num_rows, num_rows), (max(0, min(510, num_rows) - 3), min(num_rows, 520))]
    ranges = [*borders, *(sorted(rng.integers(0, num_rows + 1, 2).tolist()) for _ in range(20))]
    for start, stop in ranges:
        np.testing.assert_array_equal(video.patch[start:stop], memory[start:stop])
        out = np.full((stop - start, 2, 2, 8), -1, np.float32)
        assert video.read("patch", start, stop, out) is out
        np.testing.assert_array_equal(out, memory[start:stop])
    np.testing.assert_array_equal(video.patch[-1], memory[-1])
    np.testing.assert_array_equal(video.patch[::-3], memory[::-3])
    chosen = rng.integers(-num_rows, num_rows, 9)
    np.testing.assert_array_equal(video.patch[chosen], memory[chosen])
    np.testing.assert_array_equal(np.asarray(video.patch), memory)


def test_rows_may_come_in_any_order(space: SpaceFolder, store: StoreKind, rng: np.random.Generator) -> None:
    tiny.commit_video(space, "in order.mp4", store=store)
    with VideoWriter.open(space, tiny.KEY, tiny.tiny_plan(), tiny.tiny_source(), store=store) as writer:
        for rows in np.array_split(rng.permutation(tiny.NUM_ROWS), 13):
            for name, values in tiny.tiny_values().items():
                writer.write(name, rows, values[rows])
        writer.commit()
    ordered, shuffled = (opened(space).video(key) for key in ("in order.mp4", tiny.KEY))
    assert tiny.contents(ordered.folder) == tiny.contents(shuffled.folder)
    assert [file.xxh3 for file in ordered.record.files] == [file.xxh3 for file in shuffled.record.files]
    assert find_damage(shuffled.folder, shuffled.record, deep=True) == []


def test_a_commit_with_rows_missing_is_refused(space: SpaceFolder, store: StoreKind) -> None:
    with VideoWriter.open(space, tiny.KEY, tiny.tiny_plan(), tiny.tiny_source(), store=store) as writer:
        writer.write("patch", np.arange(tiny.NUM_ROWS), tiny.tiny_values()["patch"])
        writer.write("frame", np.arange(5), tiny.tiny_values()["frame"][:5])
        with pytest.raises(CacheError, match=r"1095 of 1100 rows of 'frame' are missing, the first is row 5"):
            writer.commit()
    assert space.committed(tiny.KEY) is None


def test_a_read_only_cache_opens(space: SpaceFolder, store: StoreKind) -> None:
    tiny.commit_video(space, store=store)
    root = space.path.parent
    everything = [root, *root.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert tiny.run(read_as_nobody, root) == 0
    finally:
        for path in everything:
            path.chmod(0o755 if path.is_dir() else 0o644)


def read_as_nobody(root: Path) -> None:
    """Permissions mean nothing to the superuser, so the process gives that up where it is one."""
    if os.getuid() == 0:
        for folder in root.parents[:4]:  # those of the test run, which are closed to others
            folder.chmod(folder.stat().st_mode | 0o001)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    assert not os.access(root, os.W_OK)
    video = qle.open_cache(root).space().video(tiny.KEY)
    assert np.array_equal(video.patch[:], tiny.tiny_values()["patch"].astype(np.float16))


@pytest.mark.parametrize("damage", ["missing", "short", "long", "foreign"])
def test_a_damaged_file_is_an_error_and_never_zeros(space: SpaceFolder, store: StoreKind, damage: str) -> None:
    tiny.commit_video(space, store=store)
    tiny.commit_video(space, "longer.mp4", store=store, num_rows=1300)
    video, longer = (opened(space).video(key) for key in (tiny.KEY, "longer.mp4"))
    name = "patch/c.2.0.0.0" if store == "zarr" else FILE_NAME
    path = video.folder / name
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        path.write_bytes((longer.folder / name).read_bytes())
    else:
        size = path.stat().st_size
        os.truncate(path, size - 1 if damage == "short" else size + 1)
    with pytest.raises(CacheCorruptError, match=path.name):
        opened(space).video(tiny.KEY)
    with pytest.raises(CacheCorruptError, match=path.name):  # opened before the damage, mapped after it
        video.read("patch", 1024, 1030)


def test_one_flipped_bit_is_found_by_its_hash(space: SpaceFolder, store: StoreKind) -> None:
    tiny.commit_video(space, store=store)
    video = opened(space).video(tiny.KEY)
    for file in video.record.files:
        path = video.folder / file.path
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert [damage.path for damage in find_damage(video.folder, video.record, deep=True)] == [file.path]
        path.write_bytes(whole)
    assert find_damage(video.folder, video.record, deep=True) == []


KILLS = [(store, step) for store in STORES for step in STEPS if step != "old_moved_aside"]


@pytest.mark.parametrize(("store", "step"), KILLS)
def test_a_kill_at_any_step_leaves_all_or_nothing(tmp_path: Path, store: StoreKind, step: str) -> None:
    count = 5 if store == "zarr" and step.startswith("file") else 1  # the first shard, after the times
    assert tiny.run(tiny.write_until, tmp_path / "cache", store, step, count) == -9
    space = create_space(tmp_path / "cache", tiny.tiny_spec())
    is_there = STEPS.index(step) >= STEPS.index("renamed")
    assert (space.committed(tiny.KEY) is not None) == is_there
    assert list(opened(space)) == [tiny.KEY] * is_there
    assert tiny.run(tiny.write_until, tmp_path / "cache", store, "never") == 0  # the same command again
    check_result(tmp_path, space, store)


@pytest.mark.parametrize("step", ["record_written", "old_moved_aside", "renamed", "parent_synced"])
def test_a_kill_while_replacing_leaves_nothing_half(tmp_path: Path, store: StoreKind, step: str) -> None:
    space = create_space(tmp_path / "cache", tiny.tiny_spec())
    old = tiny.commit_video(space, store=store, seed=7)
    assert tiny.run(tiny.write_until, tmp_path / "cache", store, step, replace=True) == -9
    found = space.committed(tiny.KEY)
    if step == "record_written":
        assert found == old
    elif step == "old_moved_aside":
        assert found is None
    else:
        assert found is not None
        assert found.source == tiny.tiny_source()
    assert tiny.run(tiny.write_until, tmp_path / "cache", store, "never", replace=True) == 0
    check_result(tmp_path, space, store)


def check_result(tmp_path: Path, space: SpaceFolder, store: StoreKind) -> None:
    """Byte for byte what an undisturbed run writes, and nothing left behind."""
    calm = create_space(tmp_path / "calm", tiny.tiny_spec())
    tiny.commit_video(calm, store=store)
    folder, expected = space.folder(tiny.KEY), calm.folder(tiny.KEY)
    assert folder is not None
    assert expected is not None
    assert tiny.contents(folder) == tiny.contents(expected)
    assert find_damage(folder, opened(space).video(tiny.KEY).record, deep=True) == []
    assert list(folder.parent.iterdir()) == [folder]


def test_two_writers_of_one_video_make_one_record(tmp_path: Path, store: StoreKind) -> None:
    space = create_space(tmp_path / "cache", tiny.tiny_spec())
    gate = tiny.PROCESSES.Barrier(2)
    results = tiny.PROCESSES.Queue()
    racers = [tiny.PROCESSES.Process(target=race, args=(tmp_path / "cache", store, gate, results)) for _ in range(2)]
    for racer in racers:
        racer.start()
    records = [CommitRecord.model_validate_json(results.get(timeout=600)) for _ in racers]
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    assert records[0] == records[1] == space.committed(tiny.KEY)
    assert list((space.path / "tmp").iterdir()) == []
    check_result(tmp_path, space, store)


def race(root: Path, store: StoreKind, gate: threading.Barrier, results: object) -> None:
    """Meet before the rows and before the commit."""
    space = create_space(root, tiny.tiny_spec())
    writer = VideoWriter.open(space, tiny.KEY, tiny.tiny_plan(), tiny.tiny_source(), store=store)
    gate.wait(60)
    tiny.fill(writer, tiny.tiny_values())
    gate.wait(60)
    results.put(writer.commit().to_json())  # type: ignore[attr-defined]


def test_the_second_writer_gets_the_record_of_the_first(space: SpaceFolder, store: StoreKind) -> None:
    late = VideoWriter.open(space, tiny.KEY, tiny.tiny_plan(), tiny.tiny_source(), store=store)
    first = tiny.commit_video(space, store="zarr")
    tiny.fill(late, tiny.tiny_values())
    assert late.commit(attempt=2) == first == space.committed(tiny.KEY)
    assert list((space.path / "tmp").iterdir()) == []
