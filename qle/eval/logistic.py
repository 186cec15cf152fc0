"""Two-parameter logistic regression, weighted and with a prior: the Platt fit of rows and the presence of queries."""

import numpy as np

from qle.segments import sigmoid

NUM_STEPS = 50


def fit_logistic(
    values: np.ndarray, targets: np.ndarray, weight: np.ndarray, *, centre: tuple[float, float], ridge: float
) -> tuple[float, float]:
    """(slope, intercept) that minimise sum(weight * cross entropy) + ridge / 2 * squared distance from `centre`.

    Newton steps, halved until they help. The ridge is in the units of `values`, so these should be about one: it makes the
    answer finite where the classes are separated.
    """
    design = np.stack([values, np.ones_like(values)], axis=1)
    prior = np.array(centre, dtype=np.float64)
    at = prior.copy()
    loss = _loss(design, targets, weight, at, prior, ridge)
    for _ in range(NUM_STEPS):
        fitted = sigmoid(design @ at)
        slope = design.T @ (weight * (fitted - targets)) + ridge * (at - prior)
        curvature = (design.T * (weight * fitted * (1 - fitted))) @ design + ridge * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        for halving in range(30):
            trial = at - step / 2**halving
            trial_loss = _loss(design, targets, weight, trial, prior, ridge)
            if trial_loss < loss:
                break
        else:
            break
        gain, at, loss = loss - trial_loss, trial, trial_loss
        if gain < 1e-10 * max(1.0, loss):
            break
    return float(at[0]), float(at[1])


def _loss(
    design: np.ndarray, targets: np.ndarray, weight: np.ndarray, at: np.ndarray, prior: np.ndarray, ridge: float
) -> float:
    log_odds = design @ at
    cross_entropy = np.maximum(log_odds, 0) - log_odds * targets + np.log1p(np.exp(-np.abs(log_odds)))
    return float(weight @ cross_entropy + ridge / 2 * np.sum(np.square(at - prior)))
