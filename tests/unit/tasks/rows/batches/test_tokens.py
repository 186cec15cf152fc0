"""Numbers that are none, and rows without gaps."""

import numpy as np
import pytest

from qle.tasks.rows.batches.tokens import has_nonfinite, runs


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_found_wherever_they_stand(dtype: str, bad: float) -> None:
    values = np.array([0.0, -0.0, 1.5, -2.0, np.finfo(dtype).max, np.finfo(dtype).tiny], dtype=dtype)
    assert not has_nonfinite(values, dtype)
    for place in range(len(values)):
        spoilt = values.copy()
        spoilt[place] = bad
        assert has_nonfinite(spoilt, dtype)


def test_bfloat16_is_judged_by_its_own_exponent() -> None:
    bits = np.array([0x3F80, 0x7C00, 0x7F7F, 0xFF7F], dtype=np.uint16)  # 0x7C00: inf of float16, 2.7e36 of bfloat16
    assert not has_nonfinite(bits, "bfloat16")
    assert has_nonfinite(np.array([0x7F80], dtype=np.uint16), "bfloat16")
    assert has_nonfinite(np.array([0xFFC0], dtype=np.uint16), "bfloat16")


def test_rows_in_pieces_without_gaps() -> None:
    assert runs(np.array([3, 4, 5, 9, 9, 10])) == [(0, 3, 6), (3, 9, 10), (4, 9, 11)]
    assert runs(np.array([7])) == [(0, 7, 8)]
    assert runs(np.array([], dtype=np.int64)) == []
