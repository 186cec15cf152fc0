"""The report page of qle localize, and how far the scores of its run may be trusted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qle.errors import CheckpointError, InputError
from qle.explain.explained import ExplainedPrediction
from qle.explain.page.report import write_report
from qle.runs.record import METRICS_FILE, read_sealed
from qle.tasks.answering import Answerer

SHOWN_METRICS = {
    "frame": ("auroc", "ap", "f1"),
    "segment": ("r1", "miou"),
    "calibration": ("ece", "brier"),
    "absent": ("",),
    "moments": ("r1@", "map", "miou"),
    "highlights": ("very_good",),
}
"""Groups of `qle eval` and beginnings of names in them that the page tells; the others stand in the run's metrics.json."""


def write_page(
    path: Path, explained: Sequence[ExplainedPrediction], provenance: Mapping[str, Any], calibration: Mapping[str, Any],
    csv: str,
) -> None:  # fmt: skip
    """The report, which offers the moments as `csv`; a folder that cannot be written to is an error of the user's."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_report(path, explained, provenance=provenance, calibration=calibration, csv=csv)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}\nchoose another --report") from error


def calibration_of(answerer: Answerer) -> dict[str, Any]:
    """How far the scores of a run may be trusted: its constants, and what its own validation said."""
    calibration: dict[str, Any] = {"localization": answerer.constants_told()}
    try:
        metrics = read_sealed(answerer.run.folder / METRICS_FILE)
    except CheckpointError:  # the page then says that nothing was measured
        return calibration
    measured = _object(_object(_object(metrics).get("validation")).get("metrics"))
    shown: dict[str, float] = {}
    for group, beginnings in SHOWN_METRICS.items():
        for name, metric in _object(measured.get(group)).items():
            value = _object(metric).get("value")
            if name.startswith(beginnings) and isinstance(value, int | float):
                shown[f"{group} {name}"] = value
    return calibration | {"metrics": shown}


def _object(value: Any) -> dict[str, Any]:
    """Other JSON than an object says nothing; the page then leaves the numbers out."""
    return value if isinstance(value, dict) else {}
