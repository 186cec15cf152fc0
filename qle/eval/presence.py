"""Does qle notice that a query does not happen? One presence probability and one list of moments a (video, query).

Enter (queries,) arrays; absent queries come from the annotations (no windows), they are not made up here.
"""

from dataclasses import dataclass

import numpy as np

from qle.eval.ranking import auroc_of, count, false_alarms, rank, ratio

REJECT_BELOW = 0.5
"""A query with a lower presence is rejected as absent (Rej-F1)."""
MISSES = 0.1
"""Share of present queries that may be missed where false alarms are counted without any threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PresenceMetrics:
    """NaN where there is no absent (or no present) query to measure with."""

    false_alarm_rate: float
    """Absent queries that get at least one moment at the stored threshold."""
    miss_rate: float
    """Present queries that get none."""
    false_alarms_at_10_misses: float
    """Absent queries whose presence reaches the value that all but a tenth of the present ones reach."""
    presence_auroc: float
    rejection_f1: float
    """Of "absent" as the positive class, presence < 0.5 as the decision."""


def presence_metrics(presence: np.ndarray, has_moment: np.ndarray, is_present: np.ndarray) -> PresenceMetrics:
    """(queries,) probability, bool, bool."""
    absent = ~is_present
    rejected = presence < REJECT_BELOW
    return PresenceMetrics(
        false_alarm_rate=float(ratio((has_moment & absent).sum(), absent.sum())),
        miss_rate=float(ratio((~has_moment & is_present).sum(), is_present.sum())),
        false_alarms_at_10_misses=float(false_alarms(count(rank(presence), is_present), MISSES)),
        presence_auroc=auroc_of(presence, is_present),
        rejection_f1=rejection_f1(rejected, absent),
    )


def rejection_f1(rejected: np.ndarray, absent: np.ndarray) -> float:
    """2 TN / (rejected + absent); NaN where nothing is absent, since there was nothing to find."""
    if not absent.any():
        return float("nan")
    return float(2 * (rejected & absent).sum() / (rejected.sum() + absent.sum()))
