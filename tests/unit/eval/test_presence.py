"""Absent queries: what counts as a false alarm, a miss, a rejection."""

import math

import numpy as np
import pytest

from qle.eval.presence import presence_metrics, rejection_f1


def test_rates_by_hand() -> None:
    found = presence_metrics(
        presence=np.array([0.9, 0.4, 0.6, 0.1]),
        has_moment=np.array([True, False, True, False]),
        is_present=np.array([True, True, False, False]),
    )
    assert (found.false_alarm_rate, found.miss_rate, found.presence_auroc) == (0.5, 0.5, 0.75)
    assert found.rejection_f1 == pytest.approx(0.5), "one of two rejected is absent, one of two absent is rejected"


def test_without_absent_queries_nothing_can_be_rejected_rightly() -> None:
    found = presence_metrics(np.array([0.9, 0.4]), np.ones(2, bool), np.ones(2, bool))
    assert math.isnan(found.false_alarm_rate)
    assert math.isnan(found.presence_auroc)
    assert math.isnan(found.rejection_f1)
    assert found.miss_rate == 0


def test_rejecting_all_and_none() -> None:
    absent = np.array([True, False, False, False])
    assert rejection_f1(np.ones(4, bool), absent) == pytest.approx(2 / 5)
    assert rejection_f1(np.zeros(4, bool), absent) == 0
