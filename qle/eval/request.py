"""What is asked of an evaluation, and what comes out of it. No torch.

EvaluationRequest -> evaluation.py -> Evaluation: a Report for each run, and mean and deviation over runs
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qle.errors import ConfigError
from qle.eval.floors import Novelty
from qle.eval.report import Report

if TYPE_CHECKING:
    from qle.runs.record import RunRecord

Runs = Sequence[tuple[Path, "RunRecord"]]
"""Folders of runs and what stands in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """What to measure, on what: runs on a cache, or a file of predictions."""

    checkpoints: tuple[Path, ...] = ()
    """Folders of runs; a folder of several seeds stands for all of them."""
    cache: Path | None = None
    """Cache with the videos that runs are measured on; files of predictions need none."""
    annotations: Path
    predictions: Path | None = None
    """JSONL in the QVHighlights submission format."""
    protocol: str | None = None
    """None: the one of the head of the runs, or moments for predictions."""
    space: str | None = None
    """Beginning of its name. None: the only one, or of several the one that the runs were trained on."""
    allow_missing: bool = False
    """Leave out annotations whose video is not cached; queries that a file of predictions lacks count as misses."""
    published: bool = False
    """parity: qvhighlights just as its program measures, also what the default mode refuses."""
    num_bootstrap: int = 1000
    seed: int = 0
    """Seed of the resampling, and of random floors."""
    device: str = "auto"
    with_dsl: bool = False
    """Retrieval: also with the dual softmax."""
    published_leaking_score: bool = False
    """parity: retrieval also by the score that T-MASS published, which knows the answer."""
    retriever: Path | None = None
    """Corpus: the run that ranks videos; the checkpoints localize in them."""
    top_videos: int = 20
    """Corpus: in which moments are looked for."""
    shortlist: int = 1000
    """Corpus: videos whose similarity is taken exactly."""
    fusion: Path | None = None
    """Corpus: fitted weights of both stages."""
    fit: Path | None = None
    """Corpus: fit these weights on what is measured, and write them there."""

    def __post_init__(self) -> None:
        if self.checkpoints and self.predictions is not None:
            raise ConfigError(
                f"--predictions {self.predictions}: measure a file or runs (--checkpoint), not both at once"
            )
        if not self.checkpoints and self.predictions is None:
            raise ConfigError("nothing to evaluate: pass --checkpoint RUN, or --predictions FILE")
        if self.published and self.protocol != "qvhighlights":
            raise ConfigError("--published repeats the program of QVHighlights: pass --protocol qvhighlights with it")
        if self.fusion is not None and self.fit is not None:
            raise ConfigError("--fusion uses fitted weights and --fit fits them: pass one of the two")
        if self.num_bootstrap < 0:
            raise ConfigError(f"--bootstrap {self.num_bootstrap}: expected 0 (no intervals) or more")
        if self.seed < 0:
            raise ConfigError(f"--seed {self.seed}: expected 0 or more")

    @property
    def cache_folder(self) -> Path:
        if self.cache is None:
            raise ConfigError("runs are measured on cached videos: pass --cache FOLDER")
        return self.cache


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedRun:
    """One run, or one file, and its numbers."""

    folder: Path
    report: Report
    novelty: Novelty | None = None
    """None where nobody knows what it was trained on."""
    official: Mapping[str, Any] | None = None
    """What the official program of a benchmark prints, where the protocol is that of one."""

    def to_json(self, *, with_queries: bool) -> dict[str, Any]:
        """The whole report."""
        report = self.report.to_json(with_queries=with_queries)
        return report if self.official is None else {"official": self.official, **report}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `qle eval` shows."""

    protocol: str
    runs: tuple[EvaluatedRun, ...]
    missing: tuple[str, ...] = ()
    """Videos of the annotations that the cache does not hold."""

    @property
    def spread(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation over the runs, by the full name of the metric; numbers that exist in all of them."""
        names = [f"{group}.{name}" for group, entries in self.runs[0].report.metrics.items() for name in entries]
        values_of = {name: [_value(run.report, name) for run in self.runs] for name in names}
        return {
            name: (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
            for name, values in values_of.items()
            if all(map(math.isfinite, values))
        }

    def to_json(self, *, with_queries: bool = True) -> dict[str, Any]:
        """One run: its report. Several: all reports, and mean and deviation of each number."""
        reports = [run.to_json(with_queries=with_queries) for run in self.runs]
        if len(reports) == 1:
            return reports[0]
        spread = {name: {"mean": mean, "deviation": deviation} for name, (mean, deviation) in self.spread.items()}
        return {"runs": reports, "spread": spread}

    def printed(self, *, with_queries: bool) -> Mapping[str, Any]:
        """The same for --json: of one run under the protocol of a benchmark exactly what its program prints."""
        only = self.runs[0].official if len(self.runs) == 1 else None
        return self.to_json(with_queries=with_queries) if only is None else only


def _value(report: Report, name: str) -> float:
    """NaN where the report has no such number: groups without anything to measure are left out."""
    group, _, entry = name.partition(".")
    metric = report.metrics.get(group, {}).get(entry)
    return math.nan if metric is None else metric.value
