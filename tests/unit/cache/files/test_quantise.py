"""What is lost when numbers are stored in fewer bits, and what must not be lost silently."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qle.cache.files.quantise import decode, encode, from_bfloat16, quantise_int8, to_bfloat16
from qle.errors import CacheError
from qle.types import Stream


def stream(dtype: str, dim: int = 8) -> Stream:
    return Stream(name="patch", row_shape=(2, dim), axes=("rows", "dim"), dtype=dtype)


@given(arrays(np.float32, 64, elements=st.floats(-(2.0**126), 2.0**126, width=32)))
def test_bfloat16_rounds_as_torch_does(values: np.ndarray) -> None:
    expected = torch.from_numpy(values).bfloat16()
    stored = to_bfloat16(values)
    np.testing.assert_array_equal(stored, expected.view(torch.uint16).numpy())
    out = np.empty_like(values)
    from_bfloat16(stored, out)
    np.testing.assert_array_equal(out, expected.float().numpy())


@given(arrays(np.float32, (3, 2, 8), elements=st.floats(-6e4, 6e4, width=32)))
def test_int8_is_off_by_half_a_step_at_most(values: np.ndarray) -> None:
    codes, scale = quantise_int8(values)
    out = np.empty_like(values)
    decode(stream("int8"), codes, scale, out)
    assert np.all(np.abs(out - values) <= 0.5001 * scale[..., None] + 1e-36)
    assert not codes[scale == 0].any()


def test_int8_keeps_the_direction_of_tokens(rng: np.random.Generator) -> None:
    tokens = rng.standard_normal((50, 16, 768)).astype(np.float32)
    codes, scale = quantise_int8(tokens)
    back = codes * scale[..., None]
    cosine = (tokens * back).sum(-1) / np.linalg.norm(tokens, axis=-1) / np.linalg.norm(back, axis=-1)
    assert cosine.min() > 0.9998


@pytest.mark.parametrize(("dtype", "value"), [("float16", 7e4), ("bfloat16", np.inf), ("int8", 7e4), ("int8", np.nan)])
def test_what_a_type_cannot_hold_is_an_error(dtype: str, value: float) -> None:
    values = np.full((1, 2, 8), value, np.float32)
    with pytest.raises(CacheError, match="do not fit the stored type"):
        encode(stream(dtype), values)


def test_stored_bytes_pass_unchanged_and_other_types_do_not() -> None:
    bits = np.arange(16, dtype=np.uint16).reshape(1, 2, 8)
    assert encode(stream("bfloat16"), bits)[0] is bits
    with pytest.raises(CacheError, match="stores float16, got values of int64"):
        encode(stream("float16"), bits.astype(np.int64))
