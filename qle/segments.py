"""Score tracks to moments, right at the edges; spans without gradients. numpy only.

    times -> edges -> smooth -> calibrate -> hysteresis -> merge -> drop short -> Moment

Rows stand for stretches of time (`row_edges`), so everything is weighted by seconds, not by rows: uneven sampling, one row,
invalid rows and the ends of the video need no special cases.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Localization:
    """The constants that turn logits into moments. Fitted on validation data (eval/fitting.py), stored in the run."""

    temperature: float = 1.0
    """Probability = sigmoid(logit / temperature + bias)."""
    bias: float = 0.0
    threshold: float = 0.5
    """A moment must reach this probability somewhere ..."""
    low_threshold: float = 0.5
    """... and lasts while it stays above this (hysteresis)."""
    smoothing_s: float = 0.0
    """Width of the smoothing window over the logits."""
    min_duration_s: float = 0.0
    merge_gap_s: float = 0.0
    """Moments that are closer than this become one."""
    presence_scale: float = 1.0
    """Presence = sigmoid(presence_scale * peak + presence_bias), peak: the highest smoothed logit of a valid row."""
    presence_bias: float = 0.0
