"""Geometry and normalisation: the pixels that a model really sees."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qle.backbones.preprocess import Preprocess, content_box
from qle.errors import ConfigError
from qle.types import Box

pytestmark = pytest.mark.slow


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.slow
def test_importing_it_loads_no_torch() -> None:
    code = (
        "import sys, qle.backbones, qle.backbones.preprocess; assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    resize=st.sampled_from(["squash", "shorter-crop", "letterbox"]),
    interpolation=st.sampled_from(["bilinear", "bicubic", "lanczos", "box", "nearest"]),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_any_picture_gets_the_wanted_shape_and_stays_untouched(height, width, resize, interpolation, target) -> None:
    preprocess = Preprocess(height=target[0], width=target[1], resize=resize, interpolation=interpolation)
    rgb = picture(height, width)
    before = rgb.copy()
    result = preprocess.geometry(rgb)
    assert result.shape == (*preprocess.output_shape, 3)
    assert result.dtype == np.uint8
    assert np.array_equal(rgb, before)
    assert result.flags.writeable
    assert not np.shares_memory(result, rgb)
    assert np.array_equal(result, preprocess.geometry(rgb))


def test_squash_is_one_pillow_resize() -> None:
    rgb = picture(37, 61)
    expected = np.asarray(Image.fromarray(rgb).resize((32, 24), Image.Resampling.BICUBIC))
    assert np.array_equal(Preprocess(height=24, width=32).geometry(rgb), expected)


def test_a_picture_of_the_right_size_passes_unchanged() -> None:
    rgb = picture(24, 24)
    for resize in ("squash", "shorter-crop", "letterbox"):
        assert np.array_equal(Preprocess(height=24, width=24, resize=resize).geometry(rgb), rgb)


def test_shorter_crop_keeps_the_middle_and_the_aspect_ratio() -> None:
    rgb = np.zeros((40, 120, 3), np.uint8)
    rgb[:, 40:80] = 255
    assert Preprocess(height=20, width=20, resize="shorter-crop", interpolation="box").geometry(rgb).min() == 255
    wider = Preprocess(height=20, width=20, resize="shorter-crop", resize_to=40, interpolation="box").geometry(rgb)
    assert np.array_equal(wider, rgb[10:30, 50:70])


def test_letterbox_keeps_the_whole_picture_between_black_bars() -> None:
    rgb = np.full((40, 80, 3), 200, np.uint8)
    result = Preprocess(height=20, width=20, resize="letterbox").geometry(rgb)
    assert (result[5:15] == 200).all()
    assert (result[:5] == 0).all()
    assert (result[15:] == 0).all()


def test_box_is_cut_out_before_the_resize() -> None:
    rgb = picture(50, 60)
    preprocess = Preprocess(height=16, width=16, crop_borders=True)
    cut = preprocess.geometry(rgb, Box(top=5, bottom=45, left=10, right=50))
    assert np.array_equal(cut, preprocess.geometry(np.ascontiguousarray(rgb[5:45, 10:50])))


def test_normalise_is_scale_mean_std_channels_first() -> None:
    preprocess = Preprocess(height=5, width=7, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    frames = torch.from_numpy(picture(5, 7)).expand(2, 3, 5, 7, 3)
    got = preprocess.normalise(frames)
    assert got.shape == (2, 3, 3, 5, 7)
    expected = (frames.double() / 255 - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.4, 0.5, 0.6])
    torch.testing.assert_close(got.double(), expected.movedim(-1, -3), atol=1e-6, rtol=0)
    assert preprocess.normalise(frames, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_survives_json_and_pickle() -> None:
    preprocess = Preprocess(height=24, width=32, resize="shorter-crop", resize_to=48, mean=(0.1, 0.2, 0.3))
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess
    assert pickle.loads(pickle.dumps(preprocess)) == preprocess
    with pytest.raises(ConfigError, match="gamma"):
        Preprocess.from_dict(preprocess.to_dict() | {"gamma": 2})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"height": 0}, "positive"),
        ({"resize": "stretch"}, "shorter-crop"),
        ({"interpolation": "cubic"}, "bicubic"),
        ({"resize_to": 300}, "belongs to shorter-crop"),
        ({"resize": "shorter-crop", "resize_to": 100}, "smaller than the cut"),
        ({"std": (0.1, 0.0, 0.1)}, "above 0"),
    ],
)
def test_impossible_settings_are_refused(changed, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Preprocess(**({"height": 224, "width": 224} | changed))


def bordered(level: int = 120) -> np.ndarray:
    frame = np.full((100, 160, 3), 16, np.uint8)
    frame[8:92, 30:130] = level
    return frame


def test_black_borders_are_found() -> None:
    assert content_box([bordered()]) == Box(top=8, bottom=92, left=30, right=130)


def test_one_bright_frame_among_dark_ones_is_enough() -> None:
    dark = np.full((100, 160, 3), 16, np.uint8)
    assert content_box([dark, bordered(), dark]) == content_box([bordered()])


def test_a_caption_in_the_border_is_kept() -> None:
    captioned = bordered()
    captioned[40:48, 4:24] = 255
    assert content_box([captioned]) == Box(top=8, bottom=92, left=4, right=130)


def test_dark_video_and_small_bright_spot_cut_nothing() -> None:
    whole = Box(top=0, bottom=100, left=0, right=160)
    spot = np.zeros((100, 160, 3), np.uint8)
    assert content_box([spot]) == whole
    spot[40:60, 70:90] = 255
    assert content_box([spot]) == whole
    assert content_box([np.full((100, 160, 3), 90, np.uint8)]) == whole
