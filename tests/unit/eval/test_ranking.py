"""Ranking metrics against their definitions, pair by pair, with ties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qle.eval.ranking import (
    ScoreCounts,
    auroc,
    auroc_of,
    average_precision,
    count,
    f1,
    mean_known,
    rank,
    ratio,
)

rows = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=30)


def average_precision_of(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(average_precision(count(rank(scores), labels)))


def auroc_by_pairs(scores: np.ndarray, labels: np.ndarray) -> float:
    won = scores[labels][:, None] - scores[~labels]
    return float(np.mean((np.sign(won) + 1) / 2)) if won.size else math.nan


def precision_by_thresholds(scores: np.ndarray, labels: np.ndarray) -> float:
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        over = scores >= threshold
        found = labels[over].sum() / max(labels.sum(), 1)
        total, recall = total + (found - recall) * labels[over].mean(), found
    return total if labels.any() else math.nan


@given(rows)
def test_both_equal_their_definitions(pairs: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([s for s, _ in pairs], float), np.array([y for _, y in pairs])
    assert auroc_of(scores, labels) == pytest.approx(auroc_by_pairs(scores, labels), nan_ok=True)
    assert average_precision_of(scores, labels) == pytest.approx(precision_by_thresholds(scores, labels), nan_ok=True)


@given(rows, st.randoms(use_true_random=False))
def test_the_order_of_rows_is_nothing(pairs: list[tuple[int, bool]], random: object) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    values = []
    for some in (pairs, shuffled):
        scores, labels = np.array([s for s, _ in some], np.float32), np.array([y for _, y in some])
        values.append((auroc_of(scores, labels), average_precision_of(scores, labels)))
    np.testing.assert_array_equal(*values)


@given(rows)
def test_a_monotone_change_is_nothing(pairs: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([s for s, _ in pairs], float), np.array([y for _, y in pairs])
    np.testing.assert_equal(auroc_of(scores, labels), auroc_of(np.exp(scores) * 7, labels))


@pytest.mark.parametrize(
    ("scores", "auroc_is", "ap_is"), [([3, 2, 1, 0], 1, 1), ([0, 1, 2, 3], 0, 5 / 12), ([1] * 4, 0.5, 0.5)]
)
def test_perfect_inverted_constant(scores: list[float], auroc_is: float, ap_is: float) -> None:
    labels = np.array([True, True, False, False])
    assert auroc_of(np.array(scores, float), labels) == auroc_is
    assert average_precision_of(np.array(scores, float), labels) == pytest.approx(ap_is)


def test_infinite_scores_are_scores() -> None:
    assert auroc_of(np.array([np.inf, 0, -np.inf, -np.inf]), np.array([True, False, True, False])) == 0.625


@pytest.mark.parametrize("label", [True, False])
def test_what_does_not_exist_is_nan(label: bool) -> None:
    assert math.isnan(auroc_of(np.arange(3.0), np.full(3, label)))
    assert math.isnan(auroc_of(np.zeros(0), np.zeros(0, bool)))
    assert math.isnan(average_precision_of(np.arange(3.0), np.zeros(3, bool)))
    assert math.isnan(mean_known(np.full(2, math.nan)))
    assert np.isnan(ratio(0, 0))


def test_average_precision_against_more_than_was_scored() -> None:
    counts = count(rank(np.array([3.0, 2.0, 1.0])), np.array([True, False, True]))
    assert average_precision(counts, 4) == pytest.approx((1 + 2 / 3) / 4)
    assert average_precision(counts, 4, is_interpolated=True) == pytest.approx((1 + 2 / 3) / 4)
    late = ScoreCounts(np.array([0.0, 1.0, 1.0]), np.array([1.0, 0.0, 0.0]))
    assert average_precision(late, 2, is_interpolated=True) == pytest.approx(2 / 3), "the best precision from there on"


def test_leading_axes_are_kept() -> None:
    positive, negative = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_array_equal(auroc(ScoreCounts(positive, negative)), [1, 0])


def test_f1_is_the_harmonic_mean() -> None:
    assert f1(2, 4, 3) == pytest.approx(2 / (1 / (2 / 4) + 1 / (2 / 3)))
    assert np.isnan(f1(0, 0, 0))
