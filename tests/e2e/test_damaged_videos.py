"""Recordings that are not whole: what is committed of them, and where it says so."""

import itertools
import pydoc
import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest

import qle
from qle.cache.tools.inspect import inspect_cache, inspect_video
from qle.cache.tools.verify import verify
from qle.extract.decode.decoder import make_decoder, request_frames
from qle.extract.decode.probe import probe
from qle.extract.decode.write import write_video
from qle.extract.sampling import Sampling
from qle.localize.request import LocalizeRequest
from qle.localize.run import localize
from qle.types import Query
from tests.e2e.test_localize import make_run
from tests.made_videos import damage, encode

FASTSTART = {"movflags": "faststart"}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 frames with B-frames, of which the references 4 and 11 are damaged."""
    path = tmp_path_factory.mktemp("damaged") / "film.mp4"
    return damage(encode(path, ticks=range(90), key_every=30, num_b_frames=2), 4, 11)


@pytest.fixture(scope="module")
def truncated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A file whose second half is missing, and what the whole one holds."""
    path = encode(tmp_path_factory.mktemp("truncated") / "film.mp4", ticks=range(90), container_options=FASTSTART)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    return path, whole


def straight(path: Path) -> dict[int, tuple[np.ndarray, bool]]:
    """Frame number -> pixels, whether it is flagged: one loop over the file, as a player does it."""
    with av.open(str(path)) as container:
        container.streams.video[
            0
        ].thread_count = 1  # what several threads put in the place of what is lost is not always equal
        frames = [frame for packet in container.demux(video=0) for frame in packet.decode()]
    pixels = [frame.reformat(format="rgb24", interpolation="BILINEAR").to_ndarray() for frame in frames]
    return {number: (rgb, frame.is_corrupt) for number, (rgb, frame) in enumerate(zip(pixels, frames, strict=True))}


@pytest.mark.parametrize("wanted", [range(90), range(0, 90, 7), range(3, 90, 25), [13], [2, 60]])
def test_damaged_frames_are_what_a_straight_decode_shows(damaged, wanted):
    """What a decoder conceals with depends on the frames before, so leaving some out changed what came out behind."""
    truth = straight(damaged)
    assert [number for number, (_, is_flagged) in truth.items() if is_flagged] == [4, 11]
    decoder = make_decoder("pyav")
    given = dict(decoder.frames(request_frames(probe(damaged), np.array(wanted))))
    assert list(given) == list(wanted)
    for number, rgb in given.items():
        np.testing.assert_array_equal(rgb, truth[number][0], err_msg=f"frame {number}")
    assert decoder.damaged == {4, 11} & set(wanted)


def test_rows_of_damaged_frames_are_invalid_and_every_command_says_so(extract, damaged, tmp_path):
    summary = extract(damaged)
    assert summary.exit_code == 0
    assert summary.spaces[0].faults == {"film.mp4": "2 damaged rows"}
    cache = Path(summary.cache)
    video = qle.open_cache(cache).space().video("film.mp4")
    assert video.record.source.damaged_rows == ((4, 5), (11, 12))
    assert np.flatnonzero(~video.valid).tolist() == [4, 11]
    assert video.record.num_valid == 88
    assert inspect_cache(cache).spaces[0].faults == {"film.mp4": "2 damaged rows"}
    assert inspect_video(cache, "film")[0].faults == "2 damaged rows"
    report = verify(cache, deep=True)
    assert (report.findings, report.faults) == ([], {"film.mp4": "2 damaged rows"})
    run = make_run(tmp_path / "run", qle.open_cache(cache).space())
    answers = localize(LocalizeRequest(checkpoint=run, cache=cache, queries=(Query(text="smoke"),), device="cpu"))
    assert "film.mp4: 2 damaged rows" in answers.notes


def test_damaged_rows_count_where_that_is_asked_for_and_are_marked_all_the_same(extract, damaged):
    summary = extract(damaged, keep_damaged=True)
    video = qle.open_cache(Path(summary.cache)).space().video("film.mp4")
    assert video.valid.all()
    assert video.record.source.damaged_rows == ((4, 5), (11, 12))
    assert summary.spaces[0].faults == {"film.mp4": "2 damaged rows"}


def test_a_truncated_recording_is_kept_as_partial_until_the_whole_one_is_there(extract, truncated, tmp_path):
    """It fails unless asked for; then the good part is committed, says so, and gives way when the file changes."""
    path, whole = truncated
    mine = shutil.copy(path, tmp_path / "film.mp4")
    failed = extract(mine)
    assert failed.exit_code == 4
    assert failed.spaces[0].failures["film.mp4"].startswith("truncated: ")
    partial = extract(mine, keep_partial=True, retry_failed=True)
    assert partial.exit_code == 0
    video = qle.open_cache(Path(partial.cache)).space().video("film.mp4")
    assert 20 < video.num_rows < 90
    assert (video.record.source.num_frames, video.record.source.frames_expected) == (video.num_rows, 90)
    text = f"partial: {video.num_rows} of 90 frames"
    assert partial.spaces[0].faults == {"film.mp4": text}
    cache = Path(partial.cache)
    assert inspect_cache(cache).spaces[0].faults == verify(cache).faults == {"film.mp4": text}
    again = extract(mine)
    assert (again.rows_written, again.spaces[0].faults) == (0, {"film.mp4": text})
    Path(mine).write_bytes(whole)
    complete = extract(mine)
    assert (complete.rows_written, complete.spaces[0].faults) == (90, {})


def test_stamps_cost_what_their_frames_cost(extract, tmp_path):
    """A gap of a day is no work; a stamp of thirty years fails its own video, and is named."""
    folder = tmp_path / "films"
    folder.mkdir()
    encode(folder / "gap.mkv", ticks=[*range(25), *range(2_500_000, 2_500_025)])
    encode(folder / "wild.mkv", ticks=[0, 1, 25 * 10**9])
    encode(folder / "good.mp4", ticks=range(25))
    summary = extract(folder, sampling=Sampling(mode="fps", fps=1))
    assert summary.spaces[0].states["done"] == 2
    assert summary.spaces[0].failures["wild.mkv"].startswith("timestamps: ")
    assert "frame 2 is stamped 1000000000.000 s" in summary.spaces[0].failures["wild.mkv"]
    video = qle.open_cache(Path(summary.cache)).space().video("gap.mkv")
    assert video.num_rows < 130
    assert video.pts[-1] == 100_000


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_frame_that_does_not_fit_into_memory_costs_its_video(extract, small_videos, tmp_path):
    """The system refuses the memory of a picture to the decode process; the same process goes on with the next video."""
    folder = shutil.copytree(small_videos, tmp_path / "films")
    write_video(folder / "huge.mp4", [np.zeros((2304, 4096, 3), np.uint8)] * 2, 10)
    summary = extract(folder, decoder="tests.faulty_decoders:Cramped", num_workers=1)
    assert (summary.spaces[0].states["done"], summary.spaces[0].states["failed"]) == (3, 1)
    assert summary.spaces[0].failures["huge.mp4"].startswith("memory: ")


PLACES = (
    *("qle.extract.engine.opening.plan_rows", "qle.extract.decode.process.request_frames"),
    *("qle.extract.decode.process.WorkerProcess.receive", "qle.extract.engine.engine.Engine._add_frames"),
    *("qle.extract.engine.stages.ForwardStage._forward", "qle.extract.engine.job.JobTarget.write"),
    "qle.extract.engine.job.JobTarget.commit",
)


@pytest.mark.parametrize("place", PLACES)
def test_a_video_that_needs_more_memory_than_there_is_costs_itself(extract, small_videos, monkeypatch, place):
    """Wherever that shows: when rows are planned, frames are asked for, or come, when they become tokens, are written or
    committed. One video at a time, so that what fails belongs to one."""
    module, _, name = place.rpartition(".")
    owner = pydoc.locate(module)
    whole, calls = getattr(owner, name), itertools.count()

    def greedy(*arguments, **named):
        return np.empty(1 << 57) if next(calls) == 0 else whole(*arguments, **named)

    monkeypatch.setattr(owner, name, greedy)
    summary = extract(small_videos, num_workers=1, batch_frames=1)
    assert (summary.spaces[0].states["done"], summary.spaces[0].states["failed"]) == (2, 1)
    assert next(iter(summary.spaces[0].failures.values())).startswith("memory: ")
