"""Clips through the engine: what is stored for a row does not depend on ranges, interruptions or company."""

from pathlib import Path

import numpy as np
import pytest
import torch

import qle
from qle.backbones import BackboneRequest, build_backbone
from qle.backbones.preprocess import Preprocess
from qle.extract.decode.decoder import make_decoder, request_frames
from qle.extract.decode.probe import probe
from qle.extract.decode.write import write_video
from qle.extract.engine.clips import ClipPlan
from tests.running import LONG_FRAMES, committed_bytes
from tests.small_m2crl import m2crl_file


@pytest.fixture(scope="module")
def m2crl(tmp_path_factory):
    """Clips of 4 frames, step 2, on pictures of 48x48."""
    return BackboneRequest(
        name="m2crl", weights=m2crl_file(tmp_path_factory.mktemp("weights")), compute_dtype="float32"
    )


def expected(path, request, num_rows):
    """Patch, frame and clip tokens of each row, clip by clip, with nothing of the engine."""
    backbone = build_backbone(request)
    frames = make_decoder("pyav").frames(request_frames(probe(path), np.arange(num_rows)))
    images = np.stack([backbone.preprocess.geometry(rgb) for _, rgb in frames])
    plan = ClipPlan(num_rows, backbone.context)
    tokens = {stream.name: np.zeros((num_rows, *stream.row_shape), np.float32) for stream in backbone.streams}
    for clip in range(plan.num_clips):
        encoded = backbone.encode(torch.from_numpy(images[plan.rows(clip)][None]))
        for row in plan.kept(clip):
            for name, values in encoded.items():
                tokens[name][row] = values[0, row - plan.start(clip)]
    return tokens


def test_two_ranges_give_what_clips_give_one_by_one(extract, long_videos, m2crl):
    path = long_videos / "long.mp4"
    summary = extract(path, backbones=(m2crl,), num_workers=2)
    video = qle.open_cache(Path(summary.cache)).space().video("long")
    for name, values in expected(path, m2crl, LONG_FRAMES).items():
        np.testing.assert_allclose(video.read(name, 0, LONG_FRAMES).astype(np.float32), values, atol=4e-3, err_msg=name)


@pytest.mark.parametrize("num_rows", [1, 3, 4, 5])
def test_videos_about_as_short_as_a_clip(extract, tmp_path, m2crl, rng, num_rows):
    path = tmp_path / "short.mp4"
    write_video(path, list(rng.integers(0, 255, (num_rows, 48, 64, 3), dtype=np.uint8)), 10)
    summary = extract(path, backbones=(m2crl,))
    video = qle.open_cache(Path(summary.cache)).space().video("short")
    for name, values in expected(path, m2crl, num_rows).items():
        np.testing.assert_allclose(video.read(name, 0, num_rows).astype(np.float32), values, atol=4e-3, err_msg=name)


def test_an_interrupted_video_goes_on_in_the_middle_and_ends_with_the_same_bytes(extract, long_videos, m2crl, tmp_path):
    def interrupt(progress):
        if progress.rows_done > 700:
            raise KeyboardInterrupt

    path = long_videos / "long.mp4"
    calm = extract(path, backbones=(m2crl,), cache=tmp_path / "calm", num_workers=2)
    with pytest.raises(KeyboardInterrupt):
        extract(path, backbones=(m2crl,), on_progress=interrupt)
    resumed = extract(path, backbones=(m2crl,), num_workers=2)
    assert 0 < resumed.rows_written < LONG_FRAMES
    assert committed_bytes(Path(resumed.cache)) == committed_bytes(Path(calm.cache))


def test_black_borders_are_found_once_a_video_and_cut(extract, tmp_path, rng):
    blocks = rng.integers(60, 255, (12, 4, 6, 3), dtype=np.uint8).repeat(16, axis=1).repeat(16, axis=2)
    bordered = np.zeros((12, 96, 128, 3), np.uint8)
    bordered[:, 16:80, 16:112] = blocks
    for name, frames in (("plain", blocks), ("bordered", bordered)):
        write_video(tmp_path / f"{name}.mp4", list(frames), 10)
    cut = extract(
        *(tmp_path / f"{name}.mp4" for name in ("plain", "bordered")),
        backbones=(BackboneRequest(name="tiny", crop_borders=True),),
    )
    space = qle.open_cache(Path(cut.cache)).space()
    plain, bordered = (space.video(name).frame[:].astype(np.float64) for name in ("plain", "bordered"))
    cosine = (plain * bordered).sum(1) / np.linalg.norm(plain, axis=1) / np.linalg.norm(bordered, axis=1)
    assert cosine.min() > 0.99


def test_the_space_holds_the_very_preprocessing_for_a_video_that_comes_later(extract, small_videos, m2crl):
    wanted = BackboneRequest(name="tiny", resize="letterbox", crop_borders=True)
    for request in (m2crl, wanted):
        summary = extract(small_videos / "b.mp4", backbones=(request,))
        space = qle.open_cache(Path(summary.cache)).space(summary.spaces[0].space)
        assert Preprocess.from_dict(space.record.hashed["preprocess"]) == build_backbone(request).preprocess
