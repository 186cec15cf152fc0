"""The index is a cache of the commit records: it always says what the disk says, whatever becomes of its file."""

import os
import shutil
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qle.cache.index import INDEX_FILE, Index, load_index
from qle.cache.layout import COMMIT_FILE, VIDEOS, video_folder
from qle.cache.spaces import SpaceFolder, create_space
from tests.tiny_cache import commit_video, edit_record, tiny_spec

ROWS = 4


@pytest.fixture
def space(tmp_path: Path) -> SpaceFolder:
    space = create_space(tmp_path / "cache", tiny_spec())
    for number in range(6):
        commit_video(space, f"ward {number % 2}/{number}.mp4", num_rows=ROWS + number, seed=number)
    return space


def _facts(index: Index) -> list[tuple[str, int, int, str]]:
    columns = (index.texts("key"), index.column("num_rows"), index.column("source_size"), index.texts("problem"))
    return sorted(zip(*columns, strict=True))


def _age(space: SpaceFolder) -> None:
    """As if every commit were an hour old, so that the folders' times may be believed."""
    for shelf in (space.path / VIDEOS).iterdir():
        stat = shelf.stat()
        os.utime(shelf, ns=(stat.st_atime_ns, stat.st_mtime_ns - 3600 * 10**9))


def _records_read(space: SpaceFolder) -> int:
    counts = [0]
    load_index(space, counts.append)
    return counts[-1]


def test_rows_are_the_records(space: SpaceFolder) -> None:
    index = load_index(space)
    assert _facts(index) == [(f"ward {n % 2}/{n}.mp4", ROWS + n, 1000 + n, "") for n in (0, 2, 4, 1, 3, 5)]
    for key, row in index.row_of_key.items():
        record = space.committed(key)
        assert record is not None
        assert index.folder(row) == space.folder(key)
        assert index.column("size_bytes")[row] == record.size_bytes
        assert (index.column("first_pts_s")[row], index.column("last_pts_s")[row]) == (0.25, record.last_pts_s)
        assert index.table["file_paths"][row].as_py() == [file.path for file in record.files]


def test_records_are_read_once(space: SpaceFolder) -> None:
    assert _records_read(space) == 6
    assert _records_read(space) == 0
    commit_video(space, "new.mp4", num_rows=ROWS)
    assert _records_read(space) == 1
    assert len(load_index(space)) == 7


def test_folders_that_are_old_are_not_even_listed(space: SpaceFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    _age(space)
    before = _facts(load_index(space))
    listed = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(str(path)) or listdir(path))
    assert _facts(load_index(space)) == before
    assert [path for path in listed if VIDEOS in path] == []


def test_a_change_within_the_same_tick_is_seen(space: SpaceFolder) -> None:
    """A commit right after a listing may leave the folder with the mtime that it had: it is too young to be believed."""
    load_index(space)
    shelves = {shelf: shelf.stat() for shelf in (space.path / VIDEOS).iterdir()}
    folder = space.folder("ward 0/0.mp4")
    assert folder is not None
    shutil.rmtree(folder)
    for shelf, stat in shelves.items():
        os.utime(shelf, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert "ward 0/0.mp4" not in load_index(space).row_of_key


def test_replaced_video_is_read_anew(space: SpaceFolder) -> None:
    load_index(space)
    _age(space)
    load_index(space)
    folder = space.folder("ward 0/0.mp4")
    assert folder is not None
    shutil.rmtree(folder)
    commit_video(space, "ward 0/0.mp4", num_rows=99, seed=50)
    index = load_index(space)
    assert index.column("num_rows")[index.row_of_key["ward 0/0.mp4"]] == 99


@pytest.mark.parametrize("content", [None, b"", b"PAR1 and then nothing", b"{}"])
def test_index_file_may_be_lost_or_broken(space: SpaceFolder, content: bytes | None) -> None:
    expected = _facts(load_index(space))
    path = space.path / INDEX_FILE
    whole = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert _facts(load_index(space)) == expected
    path.write_bytes(whole[: len(whole) // 2])
    assert _facts(load_index(space)) == expected
    assert path.stat().st_size > len(whole) // 2


def test_index_of_another_space_is_not_believed(space: SpaceFolder, tmp_path: Path) -> None:
    load_index(space)
    other = create_space(tmp_path / "cache", tiny_spec("float32"))
    shutil.copy(space.path / INDEX_FILE, other.path / INDEX_FILE)
    assert len(load_index(other)) == 0


def test_an_index_that_leads_out_of_the_cache_is_not_believed(space: SpaceFolder, tmp_path: Path) -> None:
    """`prune` deletes folders that the index names."""
    for shelf in (space.path / VIDEOS).iterdir():
        os.utime(shelf, (1, 1))  # long ago, so that the index is believed
    expected = load_index(space).texts("name")
    index = pq.read_table(space.path / INDEX_FILE)
    names = pa.array(["../../../victim.zarr"] * len(expected))
    pq.write_table(index.set_column(index.schema.get_field_index("name"), "name", names), space.path / INDEX_FILE)
    assert sorted(load_index(space).texts("name")) == sorted(expected)


def test_cache_that_cannot_be_written_is_indexed_in_memory(space: SpaceFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("qle.cache.index.replace_file", refuse)
    monkeypatch.setattr(Path, "touch", refuse)
    assert len(load_index(space)) == 6
    assert not (space.path / INDEX_FILE).exists()


def test_unusable_records_are_rows_with_a_problem(space: SpaceFolder) -> None:
    folders = [space.folder(f"ward {n % 2}/{n}.mp4") for n in range(3)]
    assert all(folders)
    torn, without, swapped = (folder / COMMIT_FILE for folder in folders if folder)
    torn.write_text(torn.read_text()[:200])
    without.unlink()
    edit_record(swapped, key="ward 0/9.mp4")
    index = load_index(space)
    problems = {
        key: problem for key, problem in zip(index.texts("key"), index.texts("problem"), strict=True) if problem
    }
    assert index.num_problems == 3
    assert "no CommitRecord" in problems["ward 0/0.mp4"] or "no JSON" in problems["ward 0/0.mp4"]
    assert "no _COMMIT.json" in problems["ward 1/1.mp4"]
    assert "holds video 'ward 0/9.mp4'" in problems["ward 0/2.mp4"]


def test_of_two_formats_readers_take_zarr(space: SpaceFolder) -> None:
    commit_video(space, "both.mp4", store="hdf5", num_rows=ROWS)
    record = commit_video(space, "ward 0/0.mp4", store="hdf5", num_rows=ROWS)
    assert record.store == "zarr"  # the video is there already, the writer says so
    copy = video_folder(space.path, "both.mp4", "zarr")
    original = space.folder("ward 0/0.mp4")
    assert original is not None
    shutil.copytree(original, copy)
    edit_record(copy / COMMIT_FILE, key="both.mp4")
    index = load_index(space)
    assert index.folder(index.row_of_key["both.mp4"]) == copy


@pytest.mark.slow
def test_many_readers_and_a_writer_agree(space: SpaceFolder) -> None:
    """Index files are replaced while others read them; nobody sees a torn one, the last look sees everything."""
    seen: list[int] = []

    def read() -> None:
        seen.extend(len(load_index(space)) for _ in range(15))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(10):
        commit_video(space, f"late {number}.mp4", num_rows=ROWS)
    for reader in readers:
        reader.join()
    assert len(seen) == 45
    assert set(seen) <= set(range(6, 17))
    assert len(load_index(space)) == 16
