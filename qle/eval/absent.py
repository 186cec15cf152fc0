"""The absent-query numbers with intervals by video."""

from dataclasses import asdict

import numpy as np

from qle.eval.bootstrap import drawn, histograms, interval, mean_draws
from qle.eval.presence import MISSES, REJECT_BELOW, presence_metrics
from qle.eval.ranking import auroc, f1, false_alarms, rank
from qle.eval.report import Metric


def absent_metrics(
    presence: np.ndarray, has_moment: np.ndarray, is_present: np.ndarray, video: np.ndarray, draws: np.ndarray | None
) -> dict[str, Metric]:
    """All (pairs,). Intervals where there are `draws` (resamples, videos)."""
    values = asdict(presence_metrics(presence, has_moment, is_present))
    if draws is None:
        return {name: Metric(value=value) for name, value in values.items()}
    alarm = has_moment.astype(np.float64)
    redrawn = drawn(draws, histograms(rank(presence), is_present, video, draws.shape[1]))
    rejected, absent = presence < REJECT_BELOW, ~is_present
    sums = [
        np.bincount(video, weights=part, minlength=draws.shape[1]) for part in (rejected & absent, rejected, absent)
    ]
    spread = {
        "false_alarm_rate": mean_draws(draws, np.where(is_present, np.nan, alarm), video),
        "miss_rate": mean_draws(draws, np.where(is_present, 1 - alarm, np.nan), video),
        "false_alarms_at_10_misses": false_alarms(redrawn, MISSES),
        "presence_auroc": auroc(redrawn),
        "rejection_f1": f1(*(draws @ part for part in sums)) if absent.any() else np.full(len(draws), np.nan),
    }
    return {name: Metric(value=value, interval=interval(spread[name])) for name, value in values.items()}
