"""Trained runs on a cache and an annotation file: score, measure, compare.

    runs + space + annotations --(predict)--> ScoredQuery --(eval/evaluate)--> a Report a run --> mean and deviation over runs

Nothing is fitted here: thresholds, temperature and priors come from the runs. The same call on another cache and other
annotations measures transfer, and the report says how much of them was new to the run.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qle.cache.reader import Space
from qle.data.annotations import Annotation, read_annotations
from qle.data.lookup import match_videos
from qle.errors import CheckpointError, ConfigError
from qle.eval.evaluate import evaluate
from qle.eval.floors import Novelty, Priors, novelty
from qle.eval.report import Report
from qle.run_spaces import space_of
from qle.runs import CONFIG_FILE, RunRecord, check_space, load_run, read_run

OnProgress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """What to measure, on what."""

    checkpoints: tuple[Path, ...]
    """Folders of runs; a folder of several seeds stands for all of them."""
    cache: Path
    annotations: Path
    space: str | None = None
    """Beginning of its name. None: the only one, or of several the one that the runs were trained on."""
    allow_missing: bool = False
    """Leave out annotations whose video is not cached."""
    num_bootstrap: int = 1000
    seed: int = 0
    """Of the resampling."""
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.checkpoints:
            raise ConfigError("no run to evaluate: pass --checkpoint RUN")
        if self.num_bootstrap < 0:
            raise ConfigError(f"--bootstrap {self.num_bootstrap}: expected 0 (no intervals) or more")
        if self.seed < 0:
            raise ConfigError(f"--seed {self.seed}: expected 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedRun:
    """One run and its numbers."""

    folder: Path
    report: Report
    novelty: Novelty | None
    """None where the run does not know what it was trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `qle eval` shows."""

    runs: tuple[EvaluatedRun, ...]
    missing: tuple[str, ...]
    """Videos of the annotations that the cache does not hold."""

    @property
    def spread(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation over the runs, by the full name of the metric; numbers that exist in all of them."""
        names = [f"{group}.{name}" for group, entries in self.runs[0].report.metrics.items() for name in entries]
        found = {name: [run.report.metric(name).value for run in self.runs] for name in names}
        return {
            name: (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
            for name, values in found.items()
            if all(map(math.isfinite, values))
        }

    def to_json(self, *, with_queries: bool = True) -> dict[str, Any]:
        """One run: its report. Several: all reports, and mean and deviation of each number."""
        reports = [run.report.to_json(with_queries=with_queries) for run in self.runs]
        if len(reports) == 1:
            return reports[0]
        spread = {name: {"mean": mean, "deviation": deviation} for name, (mean, deviation) in self.spread.items()}
        return {"runs": reports, "spread": spread}


def evaluate_runs(request: EvaluationRequest, on_progress: OnProgress | None = None) -> Evaluation:
    """Everything that can be wrong with files and names is said before the first row is scored."""
    folders = tuple(found for path in request.checkpoints for found in run_folders(path))
    records = [read_run(folder) for folder in folders]
    annotations = read_annotations(request.annotations)
    space = space_of(request.cache, records[0], request.space)
    for record in records[1:]:
        check_space(record, space)
    _, missing = match_videos(space, annotations, allow_missing=request.allow_missing)
    runs = tuple(
        _evaluate(folder, record, space, annotations, request, on_progress)
        for folder, record in zip(folders, records, strict=True)
    )
    return Evaluation(runs=runs, missing=tuple(missing))


def run_folders(path: Path) -> tuple[Path, ...]:
    """The run itself, or the runs under it that `qle train-heads --seeds` made."""
    if (path / CONFIG_FILE).exists() or not path.is_dir():
        return (path,)
    seeds = sorted(
        (found for found in path.glob("seed-*") if found.name[5:].isdigit()), key=lambda found: int(found.name[5:])
    )
    return tuple(seeds) or (path,)


def _evaluate(
    folder: Path,
    record: RunRecord,
    space: Space,
    annotations: Sequence[Annotation],
    request: EvaluationRequest,
    on_progress: OnProgress | None,
) -> EvaluatedRun:
    from qle.heads.base import RowHead
    from qle.predict import RowScorer, score_annotations
    from qle.runtime import resolve_device

    device = resolve_device(request.device)
    run = load_run(folder, device)
    if not isinstance(run.head, RowHead):
        raise CheckpointError(f"{folder}: head {record.head} gives no score to rows, which qle eval measures")
    scorer = RowScorer(run.head, run.text, device=device, rate_fps=record.rate_fps)
    scored = score_annotations(
        scorer, space, annotations, allow_missing=request.allow_missing, on_progress=on_progress
    )  # fmt: skip
    priors = None if record.priors is None else Priors.from_json(record.priors)
    keys = {one.annotation.video: one.video for one in scored}
    new = None if priors is None else novelty([one.annotation for one in scored], priors, keys)
    report = evaluate(
        scored,
        record.localization,
        priors=priors,
        num_bootstrap=request.num_bootstrap,
        seed=request.seed,
        provenance=_provenance(folder, record, space, request, new),
    )
    return EvaluatedRun(folder=folder, report=report, novelty=new)


def _provenance(
    folder: Path, record: RunRecord, space: Space, request: EvaluationRequest, new: Novelty | None
) -> Mapping[str, Any]:
    return {
        "checkpoint": str(folder),
        "weights": dict(record.digests),
        "cache": str(request.cache),
        "space": f"{space.record.name}-{space.record.hash[:12]}",
        "annotations": str(request.annotations),
        "rate_fps": record.rate_fps,
        **({} if new is None else asdict(new)),
    }
