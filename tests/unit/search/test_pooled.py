"""The pooled index says what the videos say: built, extended, shrunk, damaged, killed, shared, not writable."""

import json
import os
import signal
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from qle.cache.layout import video_folder
from qle.cache.reader import open_cache
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.tools.removal import remove_folder
from qle.durable import fits_digest
from qle.search import pooled, pooled_update
from qle.search.pooled import RECORD_FILE, DamagedIndexError, PooledIndex, folder_of, read_index
from qle.search.pooled_update import open_pooled
from qle.tasks.retrieval.batches.frames import FrameSource
from tests.planted_retrieval import DIM, retrieval_spec
from tests.tiny_cache import commit_rows, run

pytestmark = pytest.mark.slow

NUM_FRAMES = 3


def add_videos(space: SpaceFolder, *keys: str, seed: int = 0) -> None:
    for key in keys:
        values = np.random.default_rng([seed, *key.encode()]).normal(size=(7, DIM)).astype(np.float16)
        commit_rows(space, key, np.arange(7) + 0.5, values={"frame": values})


def source(root: Path) -> FrameSource:
    return FrameSource(open_cache(root).space(), "frame", NUM_FRAMES, keep_bytes=0)


@pytest.fixture
def space(tmp_path: Path) -> SpaceFolder:
    space = create_space(tmp_path / "cache", retrieval_spec())
    add_videos(space, *(f"ward {number % 3}/{number}.mp4" for number in range(9)))
    return space


def check(index: PooledIndex, root: Path) -> None:
    """Keys, frames and means are those of the committed videos."""
    frames = source(root)
    keys = [index.key(place) for place in range(len(index))]
    assert keys == list(frames.space.keys())
    expected = frames.frames(keys)
    assert np.array_equal(index.frames(np.arange(len(index))), expected)
    means = index.means(0, index.num_rows)[index.table.row]
    assert np.abs(means.astype(np.float32) - expected.mean(axis=1)).max() < 2e-3


class Reads:
    """Counts the videos that are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[str] = []
        true: Callable = FrameSource.frames
        monkeypatch.setattr(FrameSource, "frames", lambda own, keys: (self.keys.extend(keys), true(own, keys))[1])

    def since(self) -> list[str]:
        found, self.keys = self.keys, []
        return found


def test_only_what_came_since_is_read(space, monkeypatch):
    root, reads = space.path.parent, Reads(monkeypatch)
    check(open_pooled(source(root)).index, root)
    reads.since()
    check(open_pooled(source(root)).index, root)
    assert reads.since() == list(source(root).space.keys())  # of `check` alone
    add_videos(space, "new.mp4", "a/new.mp4")
    open_pooled(source(root))
    assert sorted(reads.since()) == ["a/new.mp4", "new.mp4"]
    check(open_pooled(source(root)).index, root)


def test_removed_and_replaced_videos_are_noticed(space, monkeypatch):
    root, reads = space.path.parent, Reads(monkeypatch)
    monkeypatch.setattr(pooled_update, "COMPACT_ROWS", 4)
    before = open_pooled(source(root)).index
    remove(space, "ward 0/0.mp4")
    remove(space, "ward 1/1.mp4")
    add_videos(space, "ward 1/1.mp4", seed=1)
    reads.since()
    index = open_pooled(source(root)).index
    assert reads.since() == ["ward 1/1.mp4"]
    assert (len(index), index.num_rows) == (8, 10)
    check(index, root)
    for number in range(2, 8):
        remove(space, f"ward {number % 3}/{number}.mp4")
    reads.since()
    index = open_pooled(source(root)).index
    assert reads.since() == []
    assert (len(index), index.num_rows) == (2, 2)  # moved together
    check(index, root)
    assert sorted(path.name.split("-")[0] for path in index.folder.glob("*-*")) == ["means", "table", "vectors"]
    assert len(before.frames(np.arange(len(before)))) == 9  # who has the old files open goes on with them


def remove(space: SpaceFolder, key: str) -> None:
    remove_folder(space.path, video_folder(space.path, key, "zarr"))


def test_an_untouched_space_is_not_even_listed(space, monkeypatch):
    root = space.path.parent
    monkeypatch.setattr("qle.cache.index.RACY_NS", 0)
    open_pooled(source(root))

    def listed(*_: object) -> None:
        raise AssertionError("listed again")

    monkeypatch.setattr(pooled_update, "load_index", listed)
    assert len(open_pooled(source(root)).index) == 9


def test_every_flipped_bit_of_the_record_is_noticed_or_changes_nothing(space):
    """Another number of rows, or another range of a digest, was read as if it had been written."""
    frames = source(space.path.parent)
    folder = open_pooled(frames).index.folder
    whole, text = pooled._read_record(folder, frames), bytearray((folder / RECORD_FILE).read_bytes())
    unnoticed = 0
    for place, bit in product(range(len(text)), range(8)):
        text[place] ^= 1 << bit
        if fits_digest(bytes(text)):
            (folder / RECORD_FILE).write_bytes(text)
            assert pooled._read_record(folder, frames) in (whole, None)
            unnoticed += 1
        text[place] ^= 1 << bit
    assert unnoticed < 8 * 14  # in the name of the digest, which make an older record of it


@pytest.mark.parametrize("file", ["vectors", "means", "table", "record"])
@pytest.mark.parametrize("kind", ["short", "flipped", "gone"])
def test_a_damaged_index_is_built_anew_and_never_believed(space, file, kind):
    root = space.path.parent
    folder = open_pooled(source(root)).index.folder
    (path,) = folder.glob(RECORD_FILE if file == "record" else f"{file}-*")
    content = path.read_bytes()
    if kind == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes(content[:-5] if kind == "short" else flipped)
    index = open_pooled(source(root)).index
    expected = source(root).frames([index.key(place) for place in range(len(index))])
    assert np.array_equal(index.frames(np.arange(len(index))), expected)
    if (file, kind) == ("vectors", "flipped"):
        assert len(index.damaged) == 1
        assert read_index(folder, source(root)) is None  # so it is written again
    if (file, kind) == ("means", "flipped"):
        with pytest.raises(DamagedIndexError):
            index.means(0, index.num_rows)
        (folder / RECORD_FILE).unlink()
    check(open_pooled(source(root)).index, root)


def die_at(root: Path, call: int) -> None:
    """The body of a process that is killed when it replaces a file for the n-th time."""
    count, true = 0, pooled_update.write_record

    def replace(folder: Path, name: str, content: bytes) -> None:
        nonlocal count
        count += 1
        if count == call:
            (folder / ".qle-torn.tmp").write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        true(folder, name, content)

    pooled_update.write_record = replace
    pooled_update.VIDEOS_PER_READ = pooled_update.VIDEOS_PER_COMMIT = 4
    open_pooled(source(root))


@pytest.mark.parametrize(("call", "num_kept"), [(1, 0), (2, 0), (3, 4), (4, 4), (6, 8)])
def test_a_killed_build_leaves_what_was_committed_and_goes_on(space, monkeypatch, call, num_kept):
    """Calls come in pairs, table and record, for every four videos; the last pair for the ninth."""
    root = space.path.parent
    assert run(die_at, root, call) == -signal.SIGKILL
    left = read_index(folder_of(source(root)), source(root))
    assert (0 if left is None else len(left)) == num_kept
    reads = Reads(monkeypatch)
    index = open_pooled(source(root)).index
    assert len(reads.since()) == 9 - num_kept
    check(index, root)
    assert not list(index.folder.glob(".qle-*"))


def test_an_index_of_other_numbers_is_not_used(space):
    root = space.path.parent
    folder = open_pooled(source(root)).index.folder
    values = json.loads((folder / RECORD_FILE).read_text())
    for name, value in (("space", "0" * 64), ("dim", 4), ("format", 99), ("vectors", "../vectors.f16")):
        (folder / RECORD_FILE).write_text(json.dumps(values | {name: value}))
        assert read_index(folder, source(root)) is None
    check(open_pooled(source(root)).index, root)


def test_a_cache_that_cannot_be_written_gets_a_temporary_index(space):
    root = space.path.parent
    folder_of(source(root)).write_text("in the way")
    opened = open_pooled(source(root))
    assert "for this command only" in opened.notes[0]
    check(opened.index, root)
    folder = opened.index.folder
    assert not folder.is_relative_to(root)
    assert folder.exists()
    del opened
    assert not folder.exists()


def test_a_video_that_cannot_be_read_is_named_and_tried_again(space, monkeypatch):
    root = space.path.parent
    path = video_folder(space.path, "ward 2/5.mp4", "zarr")
    data = max((path / "frame").rglob("*"), key=lambda one: one.stat().st_size if one.is_file() else 0)
    content = data.read_bytes()
    data.write_bytes(content[:-7])
    opened = open_pooled(source(root))
    assert len(opened.index) == 8
    assert list(opened.index.record.failures) == ["ward 2/5.mp4"]
    data.write_bytes(content)
    opened = open_pooled(source(root))
    assert opened.index.record.failures == {}
    check(opened.index, root)


def test_many_small_additions_leave_few_digests(space):
    root = space.path.parent
    for number in range(5):
        add_videos(space, f"later{number}.mp4")
        index = open_pooled(source(root)).index
    assert len(index.record.mean_digests) == 1
    check(index, root)
