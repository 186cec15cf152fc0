"""Decode processes that work, and real ones that abort, crash, hang, leak and are killed."""

import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from qle.backbones.preprocess import Preprocess, content_box
from qle.errors import DecodeError
from qle.extract.decode.decoder import make_decoder, request_frames
from qle.extract.decode.pool import DecodePool
from qle.extract.decode.probe import probe
from qle.extract.decode.tasks import DecodeTask, Event, Failed, Finished, Frames, Probed, ProbeTask, bytes_per_row
from qle.types import SourceFingerprint, VideoInfo, VideoSource
from tests.conftest import CHECKOUT
from tests.faulty_decoders import GOOD_FRAMES
from tests.made_videos import encode

pytestmark = pytest.mark.slow  # every test starts decode processes

SMALL = Preprocess(height=32, width=48)
SQUARE = Preprocess(height=24, width=24, resize="letterbox")


@pytest.fixture
def pool() -> Iterator[DecodePool]:
    with DecodePool(
        2, frame_bytes=bytes_per_row((SMALL, SQUARE)), stall_limit_s=1.0, memory_limit_bytes=300 << 20
    ) as pool:
        yield pool


def made_up(num_frames: int) -> VideoInfo:
    """A video that exists only for the decoders of tests/faulty_decoders.py."""
    return VideoInfo(
        path=Path("made-up.mp4"),
        fingerprint=SourceFingerprint(size=0, mtime_ns=0, edge_hash=""),
        codec="none",
        pixel_format="rgb24",
        width=64,
        height=48,
        rotation=0,
        time_base=Fraction(1, 25),
        pts_s=np.arange(num_frames) / 25,
        is_key=np.arange(num_frames) == 0,
        end_s=num_frames / 25,
        has_edit_list=False,
        declared_frames=num_frames,
    )


def task_for(name: str, tag: int, num_frames: int = 200) -> DecodeTask:
    rows = np.arange(num_frames)
    return DecodeTask(
        tag=tag, info=made_up(num_frames), decoder=f"tests.faulty_decoders:{name}", rows=rows, frame_index=rows,
        geometries=(SMALL,),
    )  # fmt: skip


def run(pool: DecodePool, tasks: list[ProbeTask | DecodeTask]) -> dict[int, list[Event]]:
    """All events by tag, frames copied."""
    waiting, events = list(tasks), {task.tag: [] for task in tasks}
    ended = 0
    while ended < len(tasks):
        while waiting and pool.num_idle:
            pool.submit(waiting.pop(0))
        for event in pool.wait(30.0):
            if isinstance(event, Frames):
                copies = tuple(image.copy() for image in event.images)
                event.release()
                event = replace(event, images=copies, release=lambda: None)
            else:
                ended += 1
            events[event.tag].append(event)
    return events


def rows_of(events: list[Event]) -> list[int]:
    return [row for event in events if isinstance(event, Frames) for row in event.rows.tolist()]


def test_pixels_are_those_of_the_decoder_in_every_geometry(pool, shared_videos):
    """Rows that describe the same frame are converted once and come back each; borders are cut only where asked for."""
    cropping = Preprocess(height=24, width=24, crop_borders=True)
    source = VideoSource(key="a", path=shared_videos / "rotated-90.mp4")
    (probed,) = run(pool, [ProbeTask(tag=5, source=source, needs_content_box=True)])[5]
    assert isinstance(probed, Probed)
    info = probe(source.path)
    np.testing.assert_array_equal(probed.info.pts_s, info.pts_s)
    frame_index = np.array([0, 0, 0, 3, 4, 4, 9, 9, 9, 9, 9, 9, 16])
    rows = np.arange(100, 100 + len(frame_index))
    task = DecodeTask(
        tag=6, info=info, decoder="pyav", rows=rows, frame_index=frame_index, geometries=(SMALL, cropping),
        content_box=probed.content_box,
    )  # fmt: skip
    events = run(pool, [task])[6]
    assert isinstance(events[-1], Finished)
    assert rows_of(events) == rows.tolist()
    frames = dict(make_decoder("pyav").frames(request_frames(info, frame_index)))
    border_frames = make_decoder("pyav").frames(
        request_frames(info, np.unique((np.arange(9) + 0.5) / 9 * 17).astype(int))
    )
    assert probed.content_box == content_box(rgb for _, rgb in border_frames)
    small, cropped = (np.concatenate([event.images[i] for event in events[:-1]]) for i in (0, 1))
    for place, number in enumerate(frame_index):
        np.testing.assert_array_equal(small[place], SMALL.geometry(frames[number]))
        np.testing.assert_array_equal(cropped[place], cropping.geometry(frames[number], probed.content_box))


def test_errors_come_back_with_kind_and_counts(pool, shared_videos):
    corrupt = probe(shared_videos / "corrupt.mp4")
    rows = np.arange(50)
    tasks = [
        ProbeTask(tag=0, source=VideoSource(key="t", path=shared_videos / "truncated.mp4")),
        ProbeTask(tag=1, source=VideoSource(key="n", path=shared_videos / "noise.mp4")),
        DecodeTask(tag=2, info=corrupt, decoder="pyav", rows=rows, frame_index=rows, geometries=(SMALL,)),
        task_for("Raising", tag=3),
        task_for("Stopping", tag=4),
    ]
    pids = pool.pids
    errors = {tag: events[-1].error for tag, events in run(pool, tasks).items()}
    facts = {tag: (error.kind, error.frames_decoded, error.frames_expected) for tag, error in errors.items()}
    assert facts == {
        0: ("truncated", 62, 420),
        1: ("open", None, None),
        2: ("decode", 28, 50),
        3: ("decode", 16, 200),
        4: ("decode", 16, 200),
    }
    assert all(type(error) is DecodeError for error in errors.values())
    assert "made-up.mp4: the decoder failed: ZeroDivisionError: a bug in a decoder" in str(errors[3])
    assert "the decoder ended after 20 of 200 rows" in str(errors[4])
    assert pool.pids == pids


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("Aborting", "crash", "SIGABRT"),
        ("Crashing", "crash", "SIGSEGV"),
        ("Hanging", "timeout", "no sign of life"),
        ("Leaking", "memory", "over the limit of 300 MiB"),
    ],
)
def test_a_decoder_that_goes_wrong_costs_its_own_video_only(pool, shared_videos, name, kind, message):
    info = probe(shared_videos / "rotated-90.mp4")
    rows = np.arange(info.num_frames)
    good = DecodeTask(tag=1, info=info, decoder="pyav", rows=rows, frame_index=rows, geometries=(SMALL,))
    again = DecodeTask(tag=2, info=info, decoder="pyav", rows=rows, frame_index=rows, geometries=(SMALL,))
    events = run(pool, [task_for(name, tag=0), good, again, task_for("Raising", tag=3, num_frames=GOOD_FRAMES)])
    failed = events[0][-1]
    assert isinstance(failed, Failed)
    assert failed.error.kind == kind
    assert message in str(failed.error)
    assert failed.error.frames_expected == 200
    assert failed.error.frames_decoded == len(rows_of(events[0])) == 16  # two whole slots of the 20 good frames
    assert rows_of(events[1]) == rows_of(events[2]) == rows.tolist()
    assert isinstance(events[3][-1], Finished)


def test_a_killed_worker_fails_its_task_while_another_goes_on(pool):
    pool.submit(task_for("Endless", tag=0))
    pool.submit(task_for("Endless", tag=1, num_frames=60))
    victim, seen, ends = pool.pids[0], {0: 0, 1: 0}, {}
    while len(ends) < 2:
        for event in pool.wait(30.0):
            if isinstance(event, Frames):
                seen[event.tag] += len(event.rows)
                event.release()
                if event.tag == 0 and seen[0] == 16:
                    os.kill(victim, signal.SIGKILL)
            else:
                ends[event.tag] = event
    assert isinstance(ends[1], Finished)
    assert seen[1] == 60
    assert ends[0].error.kind == "crash"
    assert "SIGKILL" in str(ends[0].error)
    assert 16 <= ends[0].error.frames_decoded < 200
    assert victim not in pool.pids
    assert rows_of(run(pool, [task_for("Endless", tag=2, num_frames=9)])[2]) == list(range(9))


def test_a_worker_killed_before_it_is_up_is_replaced(pool):
    for pid in pool.pids:
        os.kill(pid, signal.SIGKILL)
    events = run(pool, [task_for("Endless", tag=tag, num_frames=5) for tag in range(4)])
    failed = [tag for tag, of_tag in events.items() if isinstance(of_tag[-1], Failed)]
    assert len(failed) <= 2
    assert all(rows_of(events[tag]) == list(range(5)) for tag in set(events) - set(failed))


def test_slow_is_not_hung(pool):
    """Three seconds between frames with a stall limit of one: a long way between key frames is no reason to kill."""
    events = run(pool, [task_for("Patient", tag=0, num_frames=1)])[0]
    assert isinstance(events[-1], Finished)


def test_a_worker_that_waits_for_slots_is_not_hung(pool):
    """The receiver is busy for longer than the stall limit, with all slots in its hands."""
    pool.submit(task_for("Endless", tag=0, num_frames=64))
    held: list[Frames] = []
    while len(held) < 4:
        held += pool.wait(30.0)
    assert pool.wait(2.5) == []
    first = [image.copy() for frames in held for image in frames.images[0]]
    assert [int(image[0, 0, 0]) for image in first] == list(range(32))
    for frames in held:
        frames.release()
    rest: list[Event] = []
    while not rest or not isinstance(rest[-1], Finished):
        rest += pool.wait(30.0)
    assert rows_of(rest) == list(range(32, 64))


def test_a_cancelled_task_ends_soon(pool):
    pool.submit(task_for("Endless", tag=0, num_frames=100_000))
    seen, end = 0, None
    while end is None:
        for event in pool.wait(30.0):
            if isinstance(event, Frames):
                seen += len(event.rows)
                event.release()
                pool.cancel(0)
            else:
                end = event
    assert isinstance(end, Finished)
    assert seen < 1000
    assert pool.num_idle == 2


def test_a_pool_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setattr("qle.children.BOOT", "raise ImportError('no numpy here')")
    with DecodePool(1, frame_bytes=bytes_per_row((SMALL,))) as pool, pytest.raises(RuntimeError, match="no numpy here"):
        run(pool, [task_for("Endless", tag=0)])


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and /dev/shm")
def test_nothing_stays_when_the_parent_is_killed():
    """Workers in the middle of a task end, and no shared memory is left with a name."""
    script = """
        import numpy as np, sys
        from tests.unit.extract.decode.test_pool import DecodePool, bytes_per_row, task_for, SMALL
        pool = DecodePool(2, frame_bytes=bytes_per_row((SMALL,)))
        for tag in (0, 1):
            pool.submit(task_for("Hanging", tag=tag))
        while not pool.wait(30.0):
            pass
        print(*pool.pids, flush=True)
        sys.stdin.read()
    """
    before = set(os.listdir("/dev/shm"))
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=CHECKOUT,
        text=True,
    ) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        fds = [os.pidfd_open(pid) for pid in pids]
        parent.kill()
    for fd in fds:
        assert select.select([fd], [], [], 10.0)[0], "a worker outlived its parent"
        os.close(fd)
    assert set(os.listdir("/dev/shm")) <= before


def test_workers_load_no_torch(pool, tmp_path):
    """A worker that did would take a second to start and 300 MB."""
    run(pool, [task_for("Endless", tag=0, num_frames=1)])
    maps = Path(f"/proc/{pool.pids[0]}/maps")
    if not maps.exists():
        pytest.skip("no /proc")
    assert "torch" not in maps.read_text()


def test_a_long_video_takes_no_more_memory_than_a_short_one(tmp_path):
    """Ten minutes against an hour, every frame: neither the decoder nor what it is asked for may grow with the length."""
    peaks = []
    for num_frames in (1_200, 7_200):
        rows = np.arange(num_frames)
        info = probe(encode(tmp_path / f"{num_frames}.mkv", "mpeg4", ticks=range(num_frames), time_base=Fraction(1, 2)))
        task = DecodeTask(tag=1, info=info, decoder="pyav", rows=rows, frame_index=rows, geometries=(SMALL,))
        with DecodePool(1, frame_bytes=bytes_per_row((SMALL,))) as pool:
            ended, seen = False, 0
            pool.submit(task)
            while not ended:
                for event in pool.wait(30.0):
                    if isinstance(event, Frames):
                        seen += len(event.rows)
                        event.release()
                    else:
                        ended = True
                        status = Path(f"/proc/{pool.pids[0]}/status")
                        if not status.exists():
                            pytest.skip("no /proc")
                        peaks.append(int(status.read_text().split("VmHWM:")[1].split()[0]))
            assert seen == num_frames
    assert peaks[1] < 1.05 * peaks[0]
