"""The outcome of an evaluation: each number with its interval and floors, what was skipped, and how it was measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FLOORS = ("constant", "position", "query_rate", "query_blind")
"""Columns of the table, see eval/floors.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number."""

    value: float
    """NaN where it does not exist, e.g. a rate of false alarms without an absent query."""
    interval: tuple[float, float] | None = None
    """95 %, by resampling videos; None with one video, and for numbers that have none."""
    floors: Mapping[str, float] = field(default_factory=dict)
    """By name of the floor; the same number for scores that do not know the query, or the video."""

    def to_json(self) -> dict[str, Any]:
        return {
            "value": finite(self.value),
            "interval": None if self.interval is None else list(self.interval),
            "floors": {name: finite(value) for name, value in self.floors.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRow:
    """All pairs that ask the same."""

    query: str
    num_videos: int
    num_present: int
    """Videos in which it happens."""
    base_rate: float
    """Part of the rows in which it happens."""
    auroc: float
    """Over the rows of all its videos together."""
    average_precision: float
    f1: float
    r1_at_05: float
    miou: float
    false_alarm_rate: float
    """Share of the videos in which it does not happen, but got a moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that `qle eval` prints and writes."""

    metrics: Mapping[str, Mapping[str, Metric]]
    """frame, segment, calibration, absent -> name -> number."""
    per_query: Sequence[QueryRow]
    counts: Mapping[str, int]
    """Videos, pairs, rows; `skipped_*`: what could not take part in something, and how many of it."""
    protocol: Mapping[str, str]
    """In words, what each group of numbers means."""
    settings: Mapping[str, Any]
    """Localization, resamples, seed, and what the caller knows of run, space and annotations."""

    def metric(self, name: str) -> Metric:
        """By its full name, e.g. `frame.auroc`."""
        group, _, entry = name.partition(".")
        return self.metrics[group][entry]

    @property
    def floor_names(self) -> tuple[str, ...]:
        """Names of all floors that stand beside any number, in the order in which they first do."""
        metrics = (metric for entries in self.metrics.values() for metric in entries.values())
        return tuple(dict.fromkeys(floor for metric in metrics for floor in metric.floors))

    def rows(self, floors: Sequence[str] = FLOORS) -> list[tuple[str, ...]]:
        """For a table: metric, value, interval, then one column for each floor."""
        rows = []
        for group, entries in self.metrics.items():
            for name, metric in entries.items():
                span = (
                    ""
                    if metric.interval is None
                    else f"{number_text(metric.interval[0])} - {number_text(metric.interval[1])}"
                )
                beside = tuple(number_text(metric.floors.get(floor, math.nan), missing="") for floor in floors)
                rows.append((f"{group} {name}", number_text(metric.value), span, *beside))
        return rows

    def to_json(self, *, with_queries: bool = True) -> dict[str, Any]:
        """Strict JSON: a number that does not exist is null."""
        queries = [
            {name: finite(getattr(row, name)) for name in QueryRow.__slots__} for row in self.per_query if with_queries
        ]
        return {
            "metrics": {
                group: {name: metric.to_json() for name, metric in entries.items()}
                for group, entries in self.metrics.items()
            },
            "counts": dict(self.counts),
            "protocol": dict(self.protocol),
            "settings": dict(self.settings),
            **({"per_query": queries} if with_queries else {}),
        }


def finite(value: Any) -> Any:
    """None for a number that JSON has no word for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number_text(value: float, *, missing: str = "-") -> str:
    """0.9345 -> "0.935"."""
    return f"{value:.3f}" if math.isfinite(value) else missing
