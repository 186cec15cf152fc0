"""The report page of qle localize, and how far the scores of its run may be trusted."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qle.errors import InputError
from qle.explain.explained import ExplainedPrediction
from qle.explain.report import write_report
from qle.runs.record import METRICS_FILE
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
    path: Path, explained: Sequence[ExplainedPrediction], provenance: Mapping[str, Any], calibration: Mapping[str, Any]
) -> None:
    """The report; a folder that cannot be written to is an error of the user's."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_report(path, explained, provenance=provenance, calibration=calibration)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}\nchoose another --report") from error


def calibration_of(answerer: Answerer) -> dict[str, Any]:
    """How far the scores of a run may be trusted: its constants, and what its own validation said."""
    calibration: dict[str, Any] = {"localization": answerer.constants_told()}
    try:
        found = json.loads((answerer.run.folder / METRICS_FILE).read_bytes())
    except (OSError, ValueError):  # the page then says that nothing was measured
        return calibration
    measured = found.get("validation", {}).get("metrics", {}) if isinstance(found, dict) else {}
    calibration["metrics"] = {
        f"{group} {name}": metric["value"]
        for group in SHOWN_METRICS
        for name, metric in measured.get(group, {}).items()
        if name.startswith(SHOWN_METRICS[group]) and metric.get("value") is not None
    }
    return calibration
