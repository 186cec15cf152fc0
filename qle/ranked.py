"""Ranked spans: the constants that turn what a moment head says into moments. No torch.

candidates of all windows -> calibrated -> clipped, rounded -> suppressed -> Moment, Moment, ... best first
"""

import math
from dataclasses import dataclass

import numpy as np

from qle.errors import ConfigError
from qle.types import ScoreTrack


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Fitted on validation data, stored in the run."""

    temperature: float = 1.0
    """Probability of a span = sigmoid(logit / temperature + bias)."""
    bias: float = 0.0
    presence_scale: float = 1.0
    """Presence = sigmoid(presence_scale * highest logit + presence_bias)."""
    presence_bias: float = 0.0
    nms_tiou: float = 1.0
    """Of two spans that overlap more than this the better one stays; 1: all stay, as benchmarks want them. Spans of
    different windows of one video are always merged."""
    round_s: float = 0.0
    """Ends become multiples of this (published: the length of a clip); 0: as they are."""
    max_moments: int = 10

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"ranking.{name} = {getattr(self, name)}: expected a finite number")
        if self.temperature <= 0 or not 0 < self.nms_tiou <= 1 or self.round_s < 0 or self.max_moments < 1:
            raise ConfigError(
                f"ranking: expected temperature > 0, 0 < nms_tiou <= 1, round_s >= 0, max_moments >= 1, got {self}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What a head says about one query in one video, of all windows, before anything is cut."""

    start_s: np.ndarray
    """(candidates,) float64, seconds from the beginning of the video."""
    end_s: np.ndarray
    logit: np.ndarray
    """(candidates,) float64: log-odds, before calibration."""
    window: np.ndarray
    """(candidates,) int64: which window of the video said so."""
    track: ScoreTrack
    """Saliency of every clip."""
    duration_s: float
