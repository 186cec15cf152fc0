"""What trainings have come to: one run, several seeds, and what a training would do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, stdev
from typing import Any, Literal

SUMMARY_FILE = "summary.json"


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run folder."""

    folder: str
    state: Literal["trained", "finished before"]
    seed: int
    metrics: Mapping[str, Any]
    parameters: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """(trainable, frozen) of head and text encoder. From here on nothing is known of a run that was finished before."""
    placement: str = ""
    """Where the tokens lay while training."""
    wait_s: float = 0.0
    """That the loop waited for data."""
    num_nonfinite_rows: int = 0
    """Cached rows that hold NaN or inf: they were left out."""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """What the command has done."""

    runs: tuple[RunSummary, ...]
    spread: Mapping[str, tuple[float, float]]
    """Mean and standard deviation of every metric over the seeds; empty for one run."""
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """What a training would do."""

    space: str
    train: str
    val: str
    steps_per_epoch: int
    steps: int
    batches_per_epoch: int
    placement: str
    parameters: Mapping[str, tuple[int, int]]
    device: str
    precision: str
    num_processes: int
    num_jobs: int
    """Seeds that are trained at the same time."""
    settings: Mapping[str, Any]
    notes: tuple[str, ...]


def metric_spread(metrics: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Mean and deviation (n - 1) of every number that all runs have, by dotted name."""
    tables = [dict(_numbers(run_metrics)) for run_metrics in metrics]
    names = [name for name in tables[0] if all(name in table for table in tables)]
    return {
        name: (fmean(values), stdev(values) if len(values) > 1 else 0.0)
        for name in names
        for values in [[table[name] for table in tables]]
    }


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _numbers(part, f"{path}.{name}" if path else str(name))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)
