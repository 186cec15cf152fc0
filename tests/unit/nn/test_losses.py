"""Losses against their closed forms."""

import math

import pytest
import torch

from qle.nn.losses import (
    beta_divergence,
    binary_cross_entropy,
    evidential_cross_entropy,
    masked_mean,
    misleading_evidence,
    smoothness,
)

ALL = torch.ones(1, 3, dtype=torch.bool)


def test_the_mean_counts_only_what_the_mask_allows() -> None:
    values, mask = torch.tensor([1.0, 5.0, 100.0]), torch.tensor([True, True, False])
    assert masked_mean(values, mask).item() == 3
    assert masked_mean(values, torch.zeros(3, dtype=torch.bool)).item() == 0


def test_cross_entropy_with_class_weight() -> None:
    logit, target = torch.tensor([[0.3, -2.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.5]])
    p = torch.sigmoid(logit[0]).tolist()
    by_hand = [-3 * math.log(p[0]), -math.log(1 - p[1]), -1.5 * math.log(p[2]) - 0.5 * math.log(1 - p[2])]
    found = binary_cross_entropy(logit, target, ALL, positive_weight=3.0).item()
    assert found == pytest.approx(sum(by_hand) / 3, abs=1e-6)


def test_smoothness_stops_at_the_mask() -> None:
    logit = torch.tensor([[1.0, 4.0, -100.0]])
    assert smoothness(logit, torch.tensor([[True, True, False]])).item() == 3
    assert smoothness(logit, torch.tensor([[True, False, True]])).item() == 0


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (2.5, 1.0), (1.0, 7.0), (3.0, 4.0)])
def test_the_divergence_is_the_integral(alpha: float, beta: float) -> None:
    from scipy import integrate, stats  # most tests need none

    density = stats.beta(alpha, beta).pdf
    expected, _ = integrate.quad(lambda p: density(p) * math.log(max(density(p), 1e-300)), 0, 1)
    assert beta_divergence(torch.tensor(alpha), torch.tensor(beta)).item() == pytest.approx(expected, abs=1e-5)


def test_expected_cross_entropy_is_the_integral() -> None:
    evidence = torch.tensor([[[2.0, 0.5]]])
    from scipy import integrate, stats

    density = stats.beta(3.0, 1.5).pdf
    expected, _ = integrate.quad(lambda p: -math.log(p) * density(p), 0, 1)
    found = evidential_cross_entropy(evidence, torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool))
    assert found.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_evidence_for_the_wrong_class_costs_more_the_more_there_is(label: float) -> None:
    """The published term falls from 1.26 to 0.71 as wrong evidence grows; a penalty must rise."""
    wrong = torch.tensor([0.0, 1.5, 10.0, 100.0])
    right = torch.full((4,), 3.0)
    pair = (wrong, right) if label == 0 else (right, wrong)
    mask = torch.ones(1, dtype=torch.bool)
    costs = [
        misleading_evidence(torch.stack(pair, -1)[place : place + 1], torch.tensor([label]), mask).item()
        for place in range(4)
    ]
    assert costs[0] == pytest.approx(0, abs=1e-6)
    assert costs == sorted(costs)
    assert costs[3] > 3
