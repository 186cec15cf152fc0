"""Calibration metrics in closed form."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qle.eval.rows.calibration import adaptive_ece, aurc, bin_sums, brier, ece, ece_of_sums, row_nll

rows = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=40)


def columns(pairs: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p / 20 for p, _ in pairs], np.float32), np.array([y for _, y in pairs])


def test_certain_and_right_is_perfect() -> None:
    probability, labels = np.array([1.0, 0.0, 1.0]), np.array([True, False, True])
    found = (
        ece(probability, labels),
        adaptive_ece(probability, labels),
        brier(probability, labels),
        aurc(probability, labels),
    )
    assert found == (0, 0, 0, 0)


def test_certain_and_wrong_is_as_bad_as_can_be() -> None:
    probability, labels = np.array([1.0, 0.0]), np.array([False, True])
    assert (ece(probability, labels), brier(probability, labels), aurc(probability, labels)) == (1, 1, 1)


def test_the_base_rate_everywhere_is_calibrated() -> None:
    probability, labels = np.full(10, 0.3), np.arange(10) < 3
    assert ece(probability, labels) == pytest.approx(0)
    assert adaptive_ece(probability, labels) == pytest.approx(0)
    assert brier(probability, labels) == pytest.approx(0.21)
    assert aurc(probability, labels) == pytest.approx(0.3)


def test_ece_is_the_gap_of_bins_weighted_by_rows() -> None:
    probability, labels = np.array([0.9, 0.9, 0.9, 0.1]), np.array([True, True, False, False])
    assert ece(probability, labels) == pytest.approx(0.75 * abs(0.9 - 2 / 3) + 0.25 * 0.1)


@given(rows, st.randoms(use_true_random=False))
def test_the_order_of_rows_is_nothing(pairs: list[tuple[int, bool]], random: object) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for metric in (ece, adaptive_ece, brier, aurc):
        assert metric(*columns(pairs)) == pytest.approx(metric(*columns(shuffled)))


@given(rows)
def test_bounds_and_sums(pairs: list[tuple[int, bool]]) -> None:
    probability, labels = columns(pairs)
    for metric in (ece, adaptive_ece, brier, aurc):
        assert 0 <= metric(probability, labels) <= 1
    video = np.arange(len(labels)) % 3
    sums = bin_sums(probability, labels, video, 3)
    assert ece_of_sums(sums.sum(axis=0)) == pytest.approx(ece(probability, labels))


def test_aurc_is_low_when_errors_are_the_least_confident_on_both_sides() -> None:
    """Ordered by the probability itself, as was published, the confident "no" would come last."""
    probability = np.array([0.95, 0.9, 0.6, 0.4, 0.1, 0.05])
    labels = np.array([True, True, False, True, False, False])
    assert aurc(probability, labels) == pytest.approx(np.mean([0, 0, 0, 0, 1 / 5, 2 / 6]))


def test_nll_is_exact_at_any_log_odds() -> None:
    log_odds = np.array([0.0, 2.0, -1e4, 1e4, -np.inf])
    found = row_nll(log_odds, np.array([True, False, True, True, False]))
    np.testing.assert_allclose(found, [math.log(2), math.log1p(math.exp(2)), 1e4, 0, 0])


def test_without_rows_there_is_no_number() -> None:
    empty = np.zeros(0), np.zeros(0, bool)
    assert all(math.isnan(metric(*empty)) for metric in (ece, adaptive_ece, brier, aurc))
