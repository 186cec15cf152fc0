"""A dry run says what a run would do: the same rows and bytes, and the same files that cannot be read."""

from pathlib import Path

import pytest

from qle.backbones import BackboneRequest
from qle.extract.estimate import estimate
from qle.extract.request import ExtractRequest, TokenOptions
from qle.extract.sampling import Sampling
from tests.made_videos import encode

TINY = BackboneRequest(name="tiny")


@pytest.fixture
def request_for(tmp_path):
    """A request over the files of `tmp_path`/videos; keyword arguments replace its fields."""

    def make(**changes):
        fields = {
            "inputs": (str(tmp_path / "videos"),),
            "cache": tmp_path / "cache",
            "backbones": (TINY,),
            "sampling": Sampling(mode="native"),
            "tokens": TokenOptions(tokens="frame"),
            "devices": ("cpu",),
        }
        return ExtractRequest(**(fields | changes))

    return make


@pytest.fixture
def videos(tmp_path) -> Path:
    """Two of 25 frames a second: fine.mp4 of 60 frames, other.mkv of 30 that only PyAV decodes exactly."""
    (tmp_path / "videos").mkdir()
    encode(tmp_path / "videos" / "fine.mp4")
    encode(tmp_path / "videos" / "other.mkv", "mpeg4", ticks=range(30))
    return tmp_path / "videos"


def test_rows_bytes_and_hours_are_those_of_the_files(videos, request_for, tmp_path):
    plan = estimate(request_for())
    assert (plan.num_videos, plan.num_pending, plan.num_probed, plan.unreadable) == (2, 2, 2, {})
    assert (plan.rows, plan.frames_decoded) == (90, 90)
    assert plan.hours == pytest.approx(90 / 25 / 3600)
    assert list(plan.bytes_written.values()) == [90 * 64 * 2]
    assert min(plan.decode_rows_per_s, plan.forward_rows_per_s, plan.seconds) > 0
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_files_that_the_run_would_fail_are_named_and_do_not_end_it(videos, request_for):
    (videos / "bad.mp4").write_bytes(b"no video")
    (videos / "link.mp4").symlink_to("nowhere.mp4")
    plan = estimate(request_for())
    assert sorted(plan.unreadable) == ["bad.mp4", "link.mp4"]
    assert plan.rows >= 60


def test_a_part_outside_its_video_counts_for_nothing(videos, request_for, tmp_path):
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,start,end\nvideos/fine.mp4,50,60\n")
    plan = estimate(request_for(inputs=(str(manifest),)))
    assert (plan.rows, plan.hours) == (0, 0)


@pytest.mark.slow
def test_spaces_that_are_called_alike_are_counted_each(videos, request_for):
    plan = estimate(request_for(backbones=(TINY, BackboneRequest(name="tiny", resize="letterbox"))))
    assert list(plan.bytes_written.values()) == [90 * 64 * 2] * 2
