"""The writer where things go wrong: killed, frozen, robbed, out of space, asked for nonsense."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qle.cache.attempts import ATTEMPT_FILE, JOURNAL_FILE, remove_attempt
from qle.cache.integrity import find_damage
from qle.cache.layout import video_folder
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.writer import STEPS, VideoWriter
from qle.errors import CacheError, CacheMismatchError
from qle.types import RowPlan, SpaceSpec, Stream
from tests import tiny_cache as tiny
from tests.conftest import CHECKOUT


@pytest.fixture
def space(tmp_path: Path) -> SpaceFolder:
    return create_space(tmp_path / "cache", tiny.tiny_spec())


def open_writer(space: SpaceFolder, **options) -> VideoWriter:
    return VideoWriter.open(space, tiny.KEY, tiny.tiny_plan(), tiny.tiny_source(options.pop("seed", 0)), **options)


def attempts(space: SpaceFolder) -> list[Path]:
    return sorted((space.path / "tmp").iterdir())


def assert_right(space: SpaceFolder, tmp_path: Path) -> None:
    """Byte for byte what a calm run writes, and nothing left behind."""
    calm = create_space(tmp_path / "calm", tiny.tiny_spec())
    tiny.commit_video(calm)
    folder, record = space.folder(tiny.KEY), space.committed(tiny.KEY)
    assert tiny.contents(folder) == tiny.contents(calm.folder(tiny.KEY))
    assert find_damage(folder, record, deep=True) == []
    assert attempts(space) == []


@pytest.mark.slow
def test_complete_shards_outlive_a_kill(space: SpaceFolder, tmp_path: Path) -> None:
    # Three files of times, both streams of rows 0..511 and of 512..1023, and the patches of the rest without their frames.
    assert tiny.run(tiny.write_until, space.path.parent, "zarr", "file_logged", 8) == -9
    writer = open_writer(space)
    assert writer.is_done.tolist() == [True] * 1024 + [False] * 76
    values = {name: stream.copy() for name, stream in tiny.tiny_values().items()}
    for name, stream in values.items():
        stream[:1024] = -1  # were they written again, it would show
        writer.write(name, np.arange(tiny.NUM_ROWS), stream)
    writer.commit(attempt=2)
    assert space.committed(tiny.KEY).attempt == 2
    assert_right(space, tmp_path)


@pytest.mark.slow
def test_a_shard_of_one_stream_alone_is_not_done(space: SpaceFolder) -> None:
    assert tiny.run(tiny.write_until, space.path.parent, "zarr", "file_logged", 4) == -9
    assert not open_writer(space).is_done.any()


@pytest.mark.slow
def test_kept_shards_are_checked_before_they_are_believed(space: SpaceFolder, tmp_path: Path) -> None:
    assert tiny.run(tiny.write_until, space.path.parent, "zarr", "file_logged", 8) == -9
    (attempt,) = attempts(space)
    with open(attempt / "video" / "patch" / "c.0.0.0.0", "r+b") as file:
        file.write(b"power cut")
    with open(attempt / JOURNAL_FILE, "a") as file:
        file.write('{"path": "../../../escape", "size": 0, "xxh3": ""}\n{"path": "torn')
    writer = open_writer(space)
    assert writer.is_done.tolist() == [False] * 512 + [True] * 512 + [False] * 76
    tiny.fill(writer, tiny.tiny_values())
    writer.commit()
    assert_right(space, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["source", "rows", "store"])
def test_nothing_is_kept_when_the_rows_would_differ(space: SpaceFolder, change: str) -> None:
    assert tiny.run(tiny.write_until, space.path.parent, "zarr", "file_logged", 8) == -9
    plan = tiny.tiny_plan()
    if change == "rows":
        plan = RowPlan(frame_index=plan.frame_index, pts_s=plan.pts_s + 1e-9, is_valid=plan.is_valid)
    writer = VideoWriter.open(
        space, tiny.KEY, plan, tiny.tiny_source(change == "source"), store="hdf5" if change == "store" else "zarr"
    )
    assert not writer.is_done.any()
    assert len(attempts(space)) == 1


@pytest.mark.slow
def test_kills_at_random_times_end_in_the_right_video(
    space: SpaceFolder, tmp_path: Path, rng: np.random.Generator
) -> None:
    for _ in range(6):
        process = tiny.PROCESSES.Process(target=write_forever, args=(space.path.parent,))
        process.start()
        process.join(rng.uniform(0.01, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        if (folder := space.folder(tiny.KEY)) is not None:
            assert find_damage(folder, space.committed(tiny.KEY), deep=True) == []
    assert tiny.run(tiny.write_until, space.path.parent, "zarr", "never", replace=True) == 0
    assert_right(space, tmp_path)


def write_forever(root: Path) -> None:
    while True:
        tiny.write_until(root, "zarr", "never", replace=True)


def test_what_a_kill_leaves_of_a_removed_attempt_goes_away(space: SpaceFolder, tmp_path: Path) -> None:
    """Once the owner's name went first, and a kill right then left a folder that nobody could prove dead."""
    writer = open_writer(space)
    (path,) = attempts(space)
    removed: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qle.cache.attempts.remove", lambda space, path: removed.append(path))
        remove_attempt(path)
    assert removed[-1] == path
    assert (path / ATTEMPT_FILE).exists()
    writer.abandon(keep_shards=False)
    path.mkdir(exist_ok=True)
    tiny.commit_video(space)
    assert_right(space, tmp_path)


def test_a_disk_that_is_still_full_costs_no_finished_shard(space: SpaceFolder) -> None:
    writer = open_writer(space)
    tiny.fill(writer, tiny.tiny_values())
    writer.abandon(keep_shards=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qle.cache.attempts.replace_file", full_disk)
        with pytest.raises(CacheError, match="Nothing is lost"):
            open_writer(space)
    again = open_writer(space)
    assert again.is_done.all()
    again.abandon(keep_shards=False)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_living_attempt_is_left_alone(space: SpaceFolder, tmp_path: Path) -> None:
    first, second = open_writer(space), open_writer(space)
    tiny.fill(first, tiny.tiny_values())
    tiny.fill(second, tiny.tiny_values())
    assert first.commit() == second.commit()
    assert_right(space, tmp_path)


@pytest.mark.slow
def test_a_frozen_owner_is_robbed_and_does_no_harm(space: SpaceFolder, tmp_path: Path) -> None:
    """Stopped in the middle of the second shard, woken after its work was taken over and finished by another."""
    frozen = tiny.PROCESSES.Process(target=write_and_stop, args=(space.path.parent,))
    frozen.start()
    wait_until_stopped(frozen.pid)
    writer = open_writer(space, has_claim=True)
    assert writer.is_done.tolist() == [True] * 512 + [False] * 588
    os.kill(frozen.pid, signal.SIGCONT)
    frozen.join(60)
    assert frozen.exitcode == 7  # it noticed
    tiny.fill(writer, tiny.tiny_values())
    writer.commit()
    assert_right(space, tmp_path)


def write_and_stop(root: Path) -> None:
    writer = open_writer(create_space(root, tiny.tiny_spec()))
    values, rows = tiny.tiny_values(), np.arange(tiny.NUM_ROWS)
    for name in values:
        writer.write(name, rows[:700], values[name][:700])
    os.kill(os.getpid(), signal.SIGSTOP)
    with pytest.raises(CacheError, match="another process has taken over"):
        write_the_rest(writer, {name: -stream for name, stream in values.items()})  # as a confused owner might
    os._exit(7)


def write_the_rest(writer: VideoWriter, values: dict[str, np.ndarray]) -> None:
    for name, stream in values.items():
        writer.write(name, np.arange(700, tiny.NUM_ROWS), stream[700:])
    writer.commit()


def wait_until_stopped(pid: int) -> None:
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        os.sched_yield()


@pytest.mark.parametrize("durability", ["full", "none"])
def test_nothing_is_named_before_it_is_on_the_disk(
    space: SpaceFolder, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    """Every file and folder of the video, then its record and its folder again, then the rename, then the shelf."""
    log: list[str] = []
    fsync = os.fsync

    def logged_fsync(fd: int) -> None:
        log.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    writer = open_writer(space, durability=durability, on_step=log.append)
    tiny.fill(writer, tiny.tiny_values())
    record = writer.commit()
    if durability == "none":
        assert set(log) <= set(STEPS)
        return
    start = log.index("all_synced")
    (video,) = {os.path.dirname(path) for path in log[start:] if path.endswith("/_COMMIT.json")}
    streams = {f"{video}/{stream.name}" for stream in record.streams}
    assert {*streams, *(f"{video}/{file.path}" for file in record.files)} <= set(log[:start])
    shelf = space.folder(tiny.KEY).parent
    assert set(log[start : start + 3]) == {"all_synced", f"{video}/_COMMIT.json", video}
    assert log[start + 3 :] == ["record_written", str(shelf.parent), "renamed", str(shelf), "parent_synced", "cleaned"]


def test_giving_up_leaves_shards_to_the_next_attempt_of_the_same_process(space: SpaceFolder) -> None:
    values, rows = tiny.tiny_values(), np.arange(600)
    with open_writer(space) as writer:
        for name in values:
            writer.write(name, rows, values[name][rows])
    again = open_writer(space)
    assert again.is_done.sum() == 512
    again.abandon(keep_shards=False)
    assert attempts(space) == []


@pytest.mark.slow
def test_a_full_disk_is_explained_and_continued_from(space: SpaceFolder, tmp_path: Path) -> None:
    assert tiny.run(write_with_limit, space.path.parent, 30_000) == 7
    assert space.committed(tiny.KEY) is None
    assert tiny.run(tiny.write_until, space.path.parent, "zarr", "never") == 0
    assert_right(space, tmp_path)


def write_with_limit(root: Path, num_bytes: int) -> None:
    """A limit on the size of files fails writes like a quota does: some bytes are taken, then an error."""
    space = create_space(root, tiny.tiny_spec())
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
    writer = open_writer(space)
    with pytest.raises(CacheError, match="cannot write into"):
        tiny.fill(writer, tiny.tiny_values())
    writer.abandon(keep_shards=True)
    os._exit(7)


FULL_DISK = """
import subprocess, sys
from pathlib import Path
import pytest
from qle.cache.spaces import create_space
from qle.cache.writer import STEPS, VideoWriter
from qle.errors import CacheError
from tests import tiny_cache as tiny
disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + sys.argv[2], "none", disk], check=True)
space = create_space(disk / "cache", tiny.tiny_spec())
writer = VideoWriter.open(space, tiny.KEY, tiny.tiny_plan(), tiny.tiny_source())
with pytest.raises(CacheError, match="No space left on device\\nfree some space and run the same command again"):
    tiny.fill(writer, tiny.tiny_values())
writer.abandon(keep_shards=True)
subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
writer = VideoWriter.open(space, tiny.KEY, tiny.tiny_plan(), tiny.tiny_source())
assert writer.is_done.sum() == 512
tiny.fill(writer, tiny.tiny_values())
assert writer.commit() == space.committed(tiny.KEY)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode != 0,
    reason="needs the right to mount in a namespace of its own",
)
def test_a_real_disk_runs_full(tmp_path: Path) -> None:
    """A disk of 148 kB takes the metadata and one shard of both streams; given more room, the rest follows."""
    command = ["unshare", "-rm", sys.executable, "-c", FULL_DISK, str(tmp_path), "148k"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=CHECKOUT)
    assert ended.returncode == 0, ended.stderr  # the script asserts what is kept and what follows


def test_an_old_version_gives_way_only_when_asked_to(space: SpaceFolder) -> None:
    old = tiny.commit_video(space, seed=1)
    assert tiny.commit_video(space, seed=2) == old
    with open_writer(space, seed=2, replace=True, store="hdf5") as writer:
        tiny.fill(writer, tiny.tiny_values())
        new = writer.commit()
    assert space.committed(tiny.KEY) == new != old
    assert not video_folder(space.path, tiny.KEY, "zarr").exists()


def test_a_folder_of_another_key_is_not_taken_for_ours(space: SpaceFolder) -> None:
    tiny.commit_video(space)
    moved = video_folder(space.path, "other.mp4", "zarr")
    moved.parent.mkdir(exist_ok=True)
    os.rename(video_folder(space.path, tiny.KEY, "zarr"), moved)
    with pytest.raises(CacheMismatchError, match=r"holds video 'ward 3/video.mp4', expected 'other.mp4'"):
        space.committed("other.mp4")


def test_nonsense_is_refused(space: SpaceFolder) -> None:
    plan = tiny.tiny_plan(4)
    values = tiny.tiny_values(4)
    empty = RowPlan(frame_index=plan.frame_index[:0], pts_s=plan.pts_s[:0], is_valid=plan.is_valid[:0])
    with pytest.raises(CacheError, match="has no rows"):
        VideoWriter.open(space, tiny.KEY, empty, tiny.tiny_source())
    bad = RowPlan(frame_index=plan.frame_index, pts_s=np.array([0, 1, np.nan, 3]), is_valid=plan.is_valid)
    with pytest.raises(CacheError, match="not finite"):
        VideoWriter.open(space, tiny.KEY, bad, tiny.tiny_source())
    with VideoWriter.open(space, tiny.KEY, plan, tiny.tiny_source()) as writer:
        with pytest.raises(CacheError, match=r"rows 3\.\.4 of a video of 4 rows"):
            writer.write("frame", np.array([3, 4]), values["frame"][:2])
        with pytest.raises(CacheError, match=r"got \(4, 8\) for 2 rows"):
            writer.write("frame", np.array([0, 1]), values["frame"])
    assert attempts(space) == []


@pytest.mark.parametrize(("dim", "rows_per_chunk"), [(4096, 64), (8192, 8)])
def test_padding_of_a_short_video_is_small(tmp_path: Path, dim: int, rows_per_chunk: int) -> None:
    """15 rows of 25 kB took 1.6 MB: chunks of 64 rows are for rows below 16 KiB alone."""
    frame = Stream(name="frame", row_shape=(dim,), axes=("dim",), dtype="float16")
    wide = create_space(tmp_path, SpaceSpec(name="wide", hashed={"dim": dim}, streams=(frame,), recorded={}))
    with VideoWriter.open(wide, "a.mp4", tiny.tiny_plan(15), tiny.tiny_source(), durability="none") as writer:
        tiny.fill(writer, {"frame": np.ones((15, dim), np.float16)})
        record = writer.commit()
    assert record.stream("frame").raw.rows_per_chunk == rows_per_chunk  # type: ignore[union-attr]
    num_rows = -(-15 // rows_per_chunk) * rows_per_chunk
    assert record.size_bytes < num_rows * 2 * dim + 10_000
