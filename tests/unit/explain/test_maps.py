"""Maps keep sign, scale and place on their way into a picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qle.explain.maps import Region, cell_of_pixels, robust_scale, spearman, upsample
from qle.explain.overlay import AGAINST_COLOUR, FOR_COLOUR, MAX_OPACITY, legend, overlay, overlay_frames

FINITE = st.floats(-100, 100, width=32)


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=FINITE))
def test_upsampling_adds_no_value_and_no_sign(relevance: np.ndarray) -> None:
    large = upsample(relevance, 23, 37)
    assert large.shape == (23, 37)
    assert large.min() >= relevance.min() - 1e-4
    assert large.max() <= relevance.max() + 1e-4


def test_whole_multiples_keep_the_mean_and_put_cells_where_they_belong() -> None:
    relevance = np.zeros((4, 6), np.float32)
    relevance[1, 4] = 2.0
    large = upsample(relevance, 40, 60)
    assert np.unravel_index(large.argmax(), large.shape) in {(14, 44), (14, 45), (15, 44), (15, 45)}
    assert large.mean() == pytest.approx(relevance.mean(), rel=1e-3)


def test_region_says_where_the_grid_lies() -> None:
    relevance = np.ones((2, 2), np.float32)
    middle = upsample(relevance, 10, 20, Region(left=0.25, right=0.75))
    assert (middle[:, 5:15] == 1).all()
    assert (middle[:, :5] == 0).all()
    assert (middle[:, 15:] == 0).all()
    cells = cell_of_pixels(10, 20, (2, 2), Region(left=0.25, right=0.75))
    assert set(np.unique(cells)) == {-1, 0, 1, 2, 3}
    assert cells[0, 5] == 0
    assert cells[9, 14] == 3
    # Black bars above and below belong to the grid, not to the picture: only its middle half is seen.
    bars = cell_of_pixels(10, 20, (4, 1), Region(top=-0.5, bottom=1.5))
    assert set(np.unique(bars)) == {1, 2}


def test_scale_is_one_for_all_rows_and_ignores_a_stray_cell() -> None:
    maps = np.full((100, 4, 4), 0.5, np.float32)
    maps[0, 0, 0], maps[1, 0, 0] = 1000.0, np.nan
    assert robust_scale(maps) == pytest.approx(0.5)
    assert robust_scale(np.zeros((3, 2, 2))) > 0
    assert robust_scale([]) > 0


def test_colours_keep_sign_and_scale() -> None:
    grey = np.full((40, 40, 3), 120, np.uint8)
    relevance = np.array([[2.0, -2.0], [0.0, 1.0]], np.float32)
    painted = overlay(grey, relevance, scale=2.0).astype(int)
    full = np.rint(120 * (1 - MAX_OPACITY) + np.array([FOR_COLOUR, AGAINST_COLOUR]) * MAX_OPACITY)
    assert np.abs(painted[2, 2] - full[0]).max() <= 1
    assert np.abs(painted[2, 37] - full[1]).max() <= 1
    assert (painted[37, 2] == 120).all()  # zero paints nothing
    assert np.abs(painted[37, 37] - (120 + (full[0] - 120) / 2)).max() <= 1  # half the scale, half the paint
    faint = overlay(grey, relevance, scale=200.0).astype(int)
    assert np.abs(faint - 120).max() <= 2  # a weak map stays weak: nothing is stretched


def test_overlay_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(ValueError, match="uint8"):
        overlay(np.zeros((4, 4, 3), np.float32), np.zeros((2, 2)), 1.0)
    with pytest.raises(ValueError, match="above 0"):
        overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2)), 0.0)


def test_legend_is_the_paint_of_the_overlay() -> None:
    bar = legend(201).astype(int)[0]
    assert (bar[100] == bar[100, 0]).all()
    assert bar[0, 2] > bar[0, 0]
    assert bar[-1, 0] > bar[-1, 2]


def test_film_frames_are_even_and_carry_the_score() -> None:
    frames = [np.full((31, 41, 3), 90, np.uint8)] * 2
    first, second = overlay_frames(frames, np.zeros((2, 2, 2)), [0.0, 1.0], scale=1.0)
    assert first.shape == second.shape
    assert first.shape[0] % 2 == first.shape[1] % 2 == 0
    assert (first[:30] == 90).all()
    assert second[30:].sum() > first[30:].sum()


def test_spearman_is_that_of_scipy() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, (7, 7)), rng.normal(size=(7, 7))
    assert spearman(first, second) == pytest.approx(spearmanr(first.ravel(), second.ravel()).statistic)
    assert spearman(first, first * 3 + 1) == pytest.approx(1)
    assert np.isnan(spearman(first, np.ones((7, 7))))
