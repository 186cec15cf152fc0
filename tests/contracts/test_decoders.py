"""What every decoder promises: exactly the wanted frames, upright, the same pixels whichever way they were reached."""

import numpy as np
import pytest

from qle.errors import ConfigError, DecodeError
from qle.extract.decode.decoder import (
    DECODERS,
    NO_TICK,
    FrameRequest,
    choose_decoder,
    make_decoder,
    request_frames,
    to_ticks,
)
from qle.extract.decode.probe import probe
from qle.extract.sampling import NO_SEEK
from qle.types import VideoInfo
from tests.made_videos import encode, number_in

WHOLE_FILES = [
    *("slides-3fps.mp4", "indoor-15fps.mp4", "diving-19.6fps.mp4", "pancake.mkv", "edit-list.mp4", "variable-rate.mp4"),
    *(
        "discard-first-keyframe.mp4",
        "starts-at-8.3s.mp4",
        "rotated-90.mp4",
        "av1.mkv",
        "hevc-10bit.mp4",
        "hevc-seek.mp4",
    ),
    *("vp8.webm", "odd-size-444.mp4", "one-frame.mp4", "two-video-streams.mp4"),
]
MAX_COMPARED = 90
"""Frames of each file that are looked at in every way; seeks reach the others only by passing them."""

MADE_FILES = {
    "mpeg4.avi": {"codec": "mpeg4", "num_b_frames": 2},
    "h264.avi": {"num_b_frames": 3},
    "raw.264": {"container_format": "h264", "num_b_frames": 2},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "h264.ts": {"num_b_frames": 3},
    "open-gop.ts": {"codec_options": {"x264-params": "open-gop=1:keyint=10:bframes=3"}},
    "open-gop.mp4": {"codec_options": {"x264-params": "open-gop=1:keyint=10:bframes=3"}},
    "intra-refresh.mp4": {"codec_options": {"x264-params": "intra-refresh=1:keyint=10"}},
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}, "num_b_frames": 3},
    "open-gop-hevc.mov": {
        "codec": "libx265",
        "codec_options": {"x265-params": "log-level=none:open-gop=1:keyint=10:pools=1"},
    },
    "mpeg2.ts": {"codec": "mpeg2video", "num_b_frames": 2},
    "mpeg2.mpg": {"codec": "mpeg2video", "num_b_frames": 2},
    "vp9.webm": {"codec": "libvpx-vp9", "codec_options": {"cpu-used": "8", "deadline": "realtime"}},
    "ten-bit.mkv": {"pixel_format": "yuv420p10le"},
    "flash.flv": {"num_b_frames": 2},
    "windows.wmv": {"codec": "wmv2"},
}


@pytest.fixture(params=sorted(DECODERS))
def decoder(request) -> str:
    return request.param


def by_jumps(info: VideoInfo, wanted: np.ndarray) -> FrameRequest:
    """A request that jumps to the last key frame before every single frame, however expensive."""
    keys = np.flatnonzero(info.is_key)
    behind = np.searchsorted(keys, wanted, side="right") - 1
    seek_numbers = np.where(behind >= 0, keys[np.maximum(behind, 0)], NO_SEEK)
    seek_ticks = to_ticks(info.pts_s[np.maximum(seek_numbers, 0)], info.time_base)
    return FrameRequest(
        path=info.path,
        rotation=info.rotation,
        num_frames=info.num_frames,
        numbers=wanted,
        pts_s=info.pts_s[wanted],
        has_stamps=info.has_stamps,
        ticks=to_ticks(info.pts_s[wanted], info.time_base) if info.has_stamps else wanted,
        seek_numbers=seek_numbers,
        seek_ticks=np.where((seek_numbers == NO_SEEK) | (not info.has_stamps), NO_TICK, seek_ticks),
    )


@pytest.mark.parametrize("name", WHOLE_FILES)
def test_random_access_gives_the_pixels_of_straight_decoding(shared_videos, decoder, name):
    info = probe(shared_videos / name)
    assert choose_decoder(info, decoder) == decoder
    last = min(info.num_frames, MAX_COMPARED)
    frames = make_decoder(decoder)
    straight = dict(frames.frames(request_frames(info, np.arange(last))))
    assert sorted(straight) == list(range(last))
    assert {rgb.shape for rgb in straight.values()} == {(info.height, info.width, 3)}
    every_fifth = np.arange(0, last, 5)
    chosen = np.unique(np.random.default_rng(0).integers(0, last, 12))
    for request in (request_frames(info, chosen), request_frames(info, every_fifth), by_jumps(info, chosen)):
        given = dict(frames.frames(request))
        assert sorted(given) == request.numbers.tolist()
        for number, rgb in given.items():
            np.testing.assert_array_equal(rgb, straight[number], err_msg=f"frame {number} of {name}")


@pytest.mark.parametrize("name", MADE_FILES)
def test_frames_are_the_ones_that_were_encoded(tmp_path, name):
    info = probe(encode(tmp_path / name, **MADE_FILES[name]))
    assert info.num_frames == 60
    np.testing.assert_allclose(np.diff(info.pts_s), 0.04, atol=1e-3)
    wanted = np.array([0, 1, 9, 10, 11, 29, 30, 44, 58, 59])
    decoder = make_decoder("pyav")
    straight = dict(decoder.frames(request_frames(info, np.arange(60))))
    assert [number_in(straight[number]) for number in range(60)] == list(range(60))
    for request in (request_frames(info, wanted), by_jumps(info, wanted), by_jumps(info, np.arange(60))):
        for number, rgb in decoder.frames(request):
            np.testing.assert_array_equal(rgb, straight[number], err_msg=f"frame {number}")


def test_edit_lists_hide_what_comes_before_them(shared_videos):
    """The 45 hidden frames would otherwise be rows 0 to 44, and every row after them would be 1.8 s off."""
    info = probe(shared_videos / "edit-list.mp4")
    assert info.start_s == 0
    numbers = [number for number, _ in make_decoder("pyav").frames(request_frames(info, np.array([0, 1, 133])))]
    assert numbers == [0, 1, 133]


@pytest.mark.parametrize("wanted", [range(50), range(0, 50, 10)])
def test_a_damaged_file_says_how_far_it_is_good(shared_videos, wanted):
    info = probe(shared_videos / "corrupt.mp4")
    given = []
    with pytest.raises(DecodeError, match=r"corrupt\.mp4") as caught:
        given.extend(number for number, _ in make_decoder("pyav").frames(request_frames(info, np.array(wanted))))
    assert given == [number for number in wanted if number < 28]
    assert (caught.value.kind, caught.value.frames_decoded, caught.value.frames_expected) == ("decode", 28, 50)


def test_matrix_and_range_of_the_file_are_used(tmp_path):
    """The same stored values mean other colours under BT.709 than under BT.601."""
    pictures = {}
    for matrix in ("bt709", "smpte170m"):
        path = encode(
            tmp_path / f"{matrix}.mp4", ticks=range(40, 41), codec_options={"x264-params": f"colormatrix={matrix}"}
        )
        info = probe(path)
        pictures[matrix] = next(make_decoder("pyav").frames(request_frames(info, np.array([0]))))[1].astype(int)
    coloured = np.ptp(pictures["smpte170m"], axis=2) > 60
    assert coloured.any()
    assert np.abs(pictures["bt709"] - pictures["smpte170m"])[coloured].max() > 3


def test_auto_is_pyav_and_unknown_names_are_refused(shared_videos):
    info = probe(shared_videos / "slides-3fps.mp4")
    assert choose_decoder(info, "auto") == "pyav"
    for unknown in ("opencv", "decord"):  # the second one was known once; records that name it are read as ever
        with pytest.raises(ConfigError, match="choose auto, pyav"):
            choose_decoder(info, unknown)
