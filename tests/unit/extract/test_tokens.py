"""Pooling, dtypes and the check for numbers that cannot be stored."""

import numpy as np
import pytest
import torch

from qle.errors import ConfigError
from qle.extract.request import TokenOptions
from qle.extract.tokens import finite_rows, stored_streams, to_numpy, to_stored
from qle.types import Stream

NATIVE = (
    Stream(name="patch", row_shape=(4, 6, 8), axes=("rows", "cols", "dim"), dtype="float32"),
    Stream(name="frame", row_shape=(8,), axes=("dim",), dtype="float32"),
)


@pytest.fixture
def encoded():
    generator = torch.Generator().manual_seed(0)
    patch = torch.randn(2, 3, 4, 6, 8, generator=generator)
    return {"patch": patch, "frame": patch.mean((2, 3))}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8"])
@pytest.mark.parametrize("grid", [None, 2])
def test_stored_values_have_the_declared_shape_and_bytes(encoded, dtype, grid):
    streams = stored_streams(NATIVE, TokenOptions(dtype=dtype, grid=grid))
    stored = to_stored(encoded, streams)
    assert list(stored) == [stream.name for stream in streams]
    for stream in streams:
        values = to_numpy(stored[stream.name])
        assert values.shape == (2, 3, *stream.row_shape)
        assert values.dtype == stream.stored_dtype


def test_pooling_keeps_the_mean(encoded):
    pooled = to_stored(encoded, stored_streams(NATIVE, TokenOptions(dtype="float32", grid=2)))["patch"]
    torch.testing.assert_close(pooled.mean((2, 3)), encoded["frame"])


def test_int8_is_within_half_a_step_and_zero_tokens_stay_zero(encoded):
    encoded["patch"][0, 0, 0, 0] = 0
    stored = to_stored(encoded, stored_streams(NATIVE, TokenOptions(dtype="int8")))
    restored = stored["patch"].float() * stored["scale"][..., None]
    assert ((restored - encoded["patch"]).abs() <= stored["scale"][..., None] * 0.5001).all()
    assert (restored[0, 0, 0, 0] == 0).all()


@pytest.mark.parametrize(("value", "dtype", "is_finite"), [
    (70000.0, "float16", False), (70000.0, "bfloat16", True), (float("nan"), "float32", False),
    (float("inf"), "int8", False), (float("nan"), "int8", False), (1.0, "int8", True),
])  # fmt: skip
def test_rows_that_cannot_be_stored_are_found(encoded, value, dtype, is_finite):
    encoded["patch"][1, 2, 3, 3, 0] = value
    rows = finite_rows(to_stored(encoded, stored_streams(NATIVE, TokenOptions(dtype=dtype))))
    expected = np.ones((2, 3), dtype=bool)
    expected[1, 2] = is_finite
    np.testing.assert_array_equal(rows.numpy(), expected)


def test_frame_tokens_drop_the_map():
    assert [stream.name for stream in stored_streams(NATIVE, TokenOptions(tokens="frame"))] == ["frame"]


@pytest.mark.parametrize("options", [{"tokens": "frame", "grid": 2}, {"tokens": "frame", "dtype": "int8"}, {"grid": 0}])
def test_contradicting_options_are_refused(options):
    with pytest.raises(ConfigError, match=r"--grid|--dtype"):
        TokenOptions(**options)


def test_a_grid_finer_than_the_map_is_refused():
    with pytest.raises(ConfigError, match="only 4x6"):
        stored_streams(NATIVE, TokenOptions(grid=5))
