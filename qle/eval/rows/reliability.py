"""The calibration numbers of all usable rows, with intervals by video where the number is a sum over rows or bins."""

import numpy as np

from qle.eval.bootstrap import interval
from qle.eval.ranking import ratio
from qle.eval.report import Metric
from qle.eval.rows.calibration import adaptive_ece, aurc, bin_sums, brier, ece_of_sums, row_nll
from qle.eval.rows.scored import RowTable
from qle.segments.tracks import sigmoid


def calibration_metrics(table: RowTable, log_odds: np.ndarray, draws: np.ndarray | None) -> dict[str, Metric]:
    """`log_odds`: (rows,), calibrated. Intervals where there are `draws` (resamples, videos)."""
    rows, num_videos = table.usable, len(table.videos)
    label, video = table.label[rows], table.video[table.owner[rows]]
    probability = sigmoid(log_odds[rows])
    sums = bin_sums(probability, label, video, num_videos)
    nll = row_nll(log_odds[rows], label)
    means = {"brier": np.square(probability - label), "nll": nll}
    count = np.bincount(video, minlength=num_videos)
    spread: dict[str, tuple[float, float] | None] = {}
    if draws is not None:
        redrawn = (draws @ sums.reshape(num_videos, -1)).reshape(len(draws), *sums.shape[1:])
        spread["ece"] = interval(ece_of_sums(redrawn))
        for name, values in means.items():
            total = np.bincount(video, weights=values, minlength=num_videos)
            spread[name] = interval(ratio(draws @ total, draws @ count))
    values = {
        "ece": float(ece_of_sums(sums.sum(axis=0))),
        "adaptive_ece": adaptive_ece(probability, label),
        "brier": brier(probability, label),
        "nll": float(ratio(nll.sum(), len(nll))),
        "aurc": aurc(probability, label),
    }
    return {name: Metric(value=value, interval=spread.get(name)) for name, value in values.items()}
