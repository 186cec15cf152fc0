"""Two-parameter logistic regression, weighted and with a prior: scores to probabilities (Platt), peaks to presence.

scores + what is true -> (temperature, bias) of rows, clips, spans; (scale, bias) of the presence of queries
"""

from collections.abc import Sequence

import numpy as np

from qle.segments.tracks import sigmoid

NUM_STEPS = 50
SLOPE_RANGE = (1e-3, 1e3)
"""Range of the slope on scores of spread 1. A head that says nothing, or the opposite of the truth, has the lower end:
almost the same probability everywhere."""
SCORE_RIDGE = 1e-3
PRESENCE_RIDGE = 1.0
"""In pairs. Without it the presence of a separable validation set would be a step."""


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


def fit_calibration(logit: np.ndarray, label: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """(temperature, bias) of sigmoid(logit / temperature + bias). Targets are drawn in a little (Platt), so that few or
    separable scores give no certainty. `label` bool, with some of both; weights are counts, about 1 on average."""
    num_positive = float(label.sum())
    num_negative = len(label) - num_positive
    targets = np.where(label, (num_positive + 1) / (num_positive + 2), 1 / (num_negative + 2))
    # In units of their spread about their mean, so that scale and offset of the logits do not matter.
    middle = float(np.average(logit, weights=weight))
    spread = max(float(np.sqrt(np.average(np.square(logit - middle), weights=weight))), 1e-6)
    slope, bias = fit_logistic((logit - middle) / spread, targets, weight, centre=(0.0, 0.0), ridge=SCORE_RIDGE)
    if not SLOPE_RANGE[0] <= slope <= SLOPE_RANGE[1]:
        slope = float(np.clip(slope, *SLOPE_RANGE))
        rate = float(np.average(targets, weights=weight))
        bias = float(np.log(rate / (1 - rate)))  # at the mean logit: what is left when the slope is not free
    return spread / slope, bias - slope / spread * middle


def fit_presence(
    peak: np.ndarray, is_present: Sequence[bool] | np.ndarray, temperature: float, bias: float
) -> tuple[float, float]:
    """(scale, bias) of sigmoid(scale * peak + bias), peak: the highest logit of a pair, -inf where there is none.

    Logistic in the calibrated peak, drawn towards what the score at the peak says; just that where all or none are present.
    """
    known = np.isfinite(peak)
    present = np.asarray(is_present)[known]
    scale, offset = 1.0, 0.0
    if present.any() and not present.all():
        log_odds = peak[known].astype(np.float64) / temperature + bias
        scale, offset = fit_logistic(
            log_odds, present.astype(np.float64), np.ones(len(present)), centre=(1.0, 0.0), ridge=PRESENCE_RIDGE
        )
        if scale < 0:  # a higher peak must not mean less: then nothing is left but how many are present
            scale, offset = 0.0, float(np.log(present.mean() / (1 - present.mean())))
    return scale / temperature, scale * bias + offset


def _loss(
    design: np.ndarray, targets: np.ndarray, weight: np.ndarray, at: np.ndarray, prior: np.ndarray, ridge: float
) -> float:
    log_odds = design @ at
    cross_entropy = np.maximum(log_odds, 0) - log_odds * targets + np.log1p(np.exp(-np.abs(log_odds)))
    return float(weight @ cross_entropy + ridge / 2 * np.sum(np.square(at - prior)))
