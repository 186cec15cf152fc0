"""What a probe says of every awkward file, against what is true of it."""

import resource
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from qle.errors import PASSING, DecodeError
from qle.extract.decode.probe import probe
from tests.made_videos import encode

# codec, width, height, frames shown, first s, last s, smallest step, largest step, rotation clockwise
FACTS = {
    "slides-3fps.mp4": ("h264", 720, 406, 287, 0, 95.333, 0.333, 0.333, 0),
    "indoor-15fps.mp4": ("h264", 480, 270, 460, 0, 30.631, 0.0667, 0.0667, 0),
    "diving-19.6fps.mp4": ("h264", 320, 240, 355, 0, 18.043, 0.051, 0.051, 0),
    "pancake.mkv": ("h264", 426, 240, 310, 0, 10.3, 0.033, 0.034, 0),
    "edit-list.mp4": ("h264", 640, 360, 134, 0, 5.32, 0.04, 0.04, 0),
    "discard-first-keyframe.mp4": ("h264", 64, 64, 25, 0, 0.96, 0.04, 0.04, 0),
    "starts-at-8.3s.mp4": ("h264", 200, 112, 12, 8.333, 8.7, 0.0333, 0.0334, 0),
    "variable-rate.mp4": ("h264", 320, 240, 799, 0, 39.8, 0.033, 0.1, 0),
    "rotated-90.mp4": ("h264", 270, 480, 17, 0, 0.534, 0.0333, 0.0334, 270),
    "av1.mkv": ("av1", 640, 360, 125, 0, 4.96, 0.04, 0.04, 0),
    "hevc-10bit.mp4": ("hevc", 200, 200, 30, 0, 0.967, 0.0333, 0.0334, 0),
    "hevc-seek.mp4": ("hevc", 128, 128, 10, 0, 0.9, 0.1, 0.1, 0),
    "vp8.webm": ("vp8", 1280, 720, 30, 0, 0.967, 0.033, 0.034, 0),
    "odd-size-444.mp4": ("h264", 321, 241, 25, 0, 0.96, 0.04, 0.04, 0),
    "one-frame.mp4": ("mpeg4", 64, 64, 1, 0, 0, None, None, 0),
    "two-video-streams.mp4": ("h264", 480, 270, 390, 0, 12.98, 0.0333, 0.0334, 0),
}


@pytest.mark.parametrize("name", FACTS)
def test_facts_of_the_file(shared_videos, name):
    codec, width, height, num_frames, first_s, last_s, smallest, largest, rotation = FACTS[name]
    info = probe(shared_videos / name)
    assert (info.codec, info.width, info.height, info.num_frames) == (codec, width, height, num_frames)
    assert info.rotation == rotation
    assert info.pts_s[0] == pytest.approx(first_s, abs=6e-4)
    assert info.pts_s[-1] == pytest.approx(last_s, abs=1e-3)
    assert info.has_edit_list == (name in ("edit-list.mp4", "discard-first-keyframe.mp4", "variable-rate.mp4"))
    assert info.has_stamps
    assert info.fingerprint.size == (shared_videos / name).stat().st_size
    if num_frames > 1:
        steps = np.diff(info.pts_s)
        assert steps.min() == pytest.approx(smallest, abs=6e-4)
        assert steps.max() == pytest.approx(largest, abs=6e-4)
        assert steps.min() * 0.9 < info.end_s - info.pts_s[-1] < steps.max() * 1.1


@pytest.mark.parametrize(
    ("name", "kind", "decoded", "expected"),
    [
        ("audio-only.mp4", "no-video", None, None),
        ("empty.mp4", "open", None, None),
        ("noise.mp4", "open", None, None),
        ("absent.mp4", "open", None, None),
        ("truncated.mp4", "truncated", 62, 420),
    ],
)
def test_files_without_a_whole_video(shared_videos, name, kind, decoded, expected):
    with pytest.raises(DecodeError, match=name) as caught:
        probe(shared_videos / name)
    assert (caught.value.kind, caught.value.frames_decoded, caught.value.frames_expected) == (kind, decoded, expected)
    assert len(str(caught.value).splitlines()) <= 3


def test_what_the_system_refuses_is_no_fault_of_the_film(tmp_path):
    """Such a video stayed out of every later run, as one that is no film does."""
    path = tmp_path / "film.mp4"
    encode(path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(DecodeError, match="Too many open files") as caught:
            probe(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert caught.value.kind == PASSING


@pytest.mark.parametrize("name", ["pancake.mkv", "vp8.webm"])
def test_a_copy_that_broke_off_is_truncated(shared_videos, tmp_path, name):
    whole = (shared_videos / name).read_bytes()
    broken = tmp_path / name
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DecodeError) as caught:
        probe(broken)
    assert caught.value.kind == "truncated"
    assert 0 < caught.value.frames_decoded < caught.value.frames_expected


def test_uneven_stamps_come_back_exactly(tmp_path):
    ticks = np.cumsum(np.random.default_rng(3).integers(1, 4000, 90))
    info = probe(encode(tmp_path / "uneven.mkv", ticks=ticks.tolist(), time_base=Fraction(1, 1000)))
    np.testing.assert_allclose(info.pts_s, ticks / 1000, atol=1e-12)


def test_h264_in_avi_carries_no_display_times(tmp_path):
    """The demuxer makes stamps up in the order of decoding; with B-frames those belong to other frames."""
    info = probe(encode(tmp_path / "recorder.avi", num_b_frames=3))
    assert not info.has_stamps
    assert info.num_frames == 60
    np.testing.assert_allclose(np.diff(info.pts_s), 0.04)


@pytest.mark.parametrize("name", ["a:b.mp4", "file:x.mp4", "with space and \u00fc.mp4", "-dash.mp4", "100%d.mp4"])
def test_strange_names_are_only_names(shared_videos, tmp_path, monkeypatch, name):
    shutil.copy(shared_videos / "one-frame.mp4", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert probe(Path(name)).num_frames == 1
