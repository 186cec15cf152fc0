"""Two scores become one: how well the video fits, and how sure the moment is. No torch.

    fused = weight * log softmax_videos(similarity / temperature) + (1 - weight) * log p(moment)
    shown = exp(fused) = share ** weight * p ** (1 - weight), in [0, 1]

The softmax is over the videos that were scored exactly (the shortlist). For the order within one query only the ratio of
weight / temperature to 1 - weight counts, so the two are fitted one after the other on validation queries: the temperature so
that the shares are probabilities (the highest likelihood of the right videos), then the weight so that the chain finds most
moments. A file of weights knows the runs that it was fitted for, and is refused for others.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qle.durable import replace_file
from qle.errors import ConfigError, InputError
from qle.inputs import parse_json, read_input_bytes

KIND = "qle fusion"
DEFAULT_WEIGHT, DEFAULT_TEMPERATURE = 0.5, 0.01
"""Without fitted ones; 0.01 is the temperature at which similarities are trained (T-MASS, as CLIP)."""
LEAST_PROBABILITY = 1e-6
"""Least probability of a moment: what is shown as 0.000000 still has a logarithm."""
WEIGHTS = tuple(number / 20 for number in range(21))
TEMPERATURES = (5e-3, 1.0)
"""Between which one is fitted: where validation has no mistake, every smaller one is likelier, and none is truer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """Weights of the two stages."""

    weight: float = DEFAULT_WEIGHT
    """Weight of the video (lambda); 0: the moment alone, 1: the video alone."""
    temperature: float = DEFAULT_TEMPERATURE
    """Temperature of the similarities (tau)."""
    fitted: Mapping[str, Any] = field(default_factory=dict)
    """On what, for which runs; empty: not fitted."""

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1 or not 0 < self.temperature < math.inf:
            raise ConfigError(f"fusion: expected lambda in 0..1 and tau > 0, got {self.weight} and {self.temperature}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """All moments of one query, in any order."""

    video: np.ndarray
    """(moments,) int64: which of the scored videos each is in."""
    probability: np.ndarray
    """(moments,) float64"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """The same, best first."""

    order: np.ndarray
    """(moments,) int64: numbers of the moments."""
    score: np.ndarray
    """(moments,) float64 in [0, 1], falling."""
    level: np.ndarray
    """(moments,) int64, rising: moments of one level are equal in everything that could order them."""


def log_shares(similarity: np.ndarray, temperature: float) -> np.ndarray:
    """(videos,) float64: log softmax."""
    wide = similarity.astype(np.float64) / temperature
    top = wide.max(initial=-np.inf)
    log_share: np.ndarray = wide - top - np.log(np.exp(wide - top).sum())
    return log_share


def fuse(moments: Scored, similarity: np.ndarray, fusion: Fusion) -> Fused:
    """Equal scores (always, within a video, where the video alone counts) are ordered by video, then by the moment."""
    log_share = log_shares(similarity, fusion.temperature)[moments.video]
    log_moment = np.log(np.maximum(moments.probability, LEAST_PROBABILITY))
    fused = fusion.weight * log_share + (1 - fusion.weight) * log_moment
    order = np.lexsort((-moments.probability, -log_share, -fused))
    keys = np.stack([fused, log_share, moments.probability])[:, order]
    is_new = np.any(keys[:, 1:] != keys[:, :-1], axis=0)
    level = np.concatenate([[0], np.cumsum(is_new)]) if len(order) else np.zeros(0, np.int64)
    return Fused(order=order, score=np.exp(fused[order]), level=level.astype(np.int64))


def fit_temperature(similarity: Sequence[np.ndarray], is_right: Sequence[np.ndarray]) -> float:
    """The likeliest temperature, by golden section on its logarithm, from the similarities of all videos to each query, and
    which videos are right."""
    known = [
        (similarities.astype(np.float64), right)
        for similarities, right in zip(similarity, is_right, strict=True)
        if right.any() and not right.all()
    ]
    if not known:
        return DEFAULT_TEMPERATURE

    def loss(log_temperature: float) -> float:
        shares = ((log_shares(similarities, math.exp(log_temperature)), right) for similarities, right in known)
        return -float(np.mean([np.logaddexp.reduce(share[right]) for share, right in shares]))

    return math.exp(_lowest(loss, math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1])))


def fit_weight(value_at: Callable[[float], tuple[float, ...]]) -> float:
    """The weight with the highest value (further ones decide between equals); of several the one in their middle."""
    values = {weight: value_at(weight) for weight in WEIGHTS}
    best = [weight for weight, value in values.items() if value == max(values.values())]
    return best[len(best) // 2]


def write_fusion(path: Path, fusion: Fusion) -> None:
    values = {"kind": KIND, "format": 1, "lambda": fusion.weight, "tau": fusion.temperature, "fitted": fusion.fitted}
    try:
        replace_file(path, json.dumps(values, indent=1, allow_nan=False).encode() + b"\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}\nchoose another --fit") from error


def read_fusion(path: Path, runs: Mapping[str, str]) -> Fusion:
    """runs: what the file must have been fitted for (retriever, localizer), by the identity of their weights."""
    try:
        values = parse_json(read_input_bytes(path))
        if values["kind"] != KIND or values["format"] != 1:
            raise ValueError("not a file of fused weights of this version")
        fusion = Fusion(weight=float(values["lambda"]), temperature=float(values["tau"]), fitted=dict(values["fitted"]))
    except OSError as error:
        raise InputError(f"--fusion {path} cannot be read: {error.strerror}\n{_HOW}") from error
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise InputError(f"--fusion {path}: no weights of a search ({error})\n{_HOW}") from error
    for name, identity in runs.items():
        if fusion.fitted.get("runs", {}).get(name) != identity:
            raise ConfigError(f"--fusion {path}: fitted for another {name} than this run\n{_HOW}")
    return fusion


def settings_of(fusion: Fusion) -> dict[str, Any]:
    """For reports and results."""
    values = asdict(fusion)
    return {"lambda": values["weight"], "tau": values["temperature"], "fitted": values["fitted"] or None}


_HOW = "fit them on validation annotations: qle eval --protocol corpus ... --fit fusion.json"


def _lowest(function: Callable[[float], float], low: float, high: float, steps: int = 40) -> float:
    """Golden section, after a look at a grid: the function need not have one valley only."""
    grid = np.linspace(low, high, 25)
    lowest = int(np.argmin([function(point) for point in grid]))
    low, high = float(grid[max(0, lowest - 1)]), float(grid[min(len(grid) - 1, lowest + 1)])
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(steps):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if function(left) <= function(right):
            high = right
        else:
            low = left
    return (low + high) / 2
