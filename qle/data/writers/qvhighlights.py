"""The keys of QVHighlights without qle's own: for tools that know nothing else, and as what its evaluator is asked with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qle.data.annotations import Annotation, qid_to_json, row_of
from qle.data.readlog import ReadLog
from qle.data.writers.rows import duration_of, json_lines, labelled, plain, single_windows, tell_lost
from qle.errors import AnnotationError

CLIP_S = 2.0


def encode(out: Path, annotations: Sequence[Annotation], log: ReadLog) -> Mapping[Path, bytes]:
    """Windows and ratings; hidden rows without."""
    kept = _not_absent(annotations, log)
    tell_lost(kept, log, "boxes", "masks", "concept", "split")
    if any(annotation.saliency is not None and annotation.clip_s != CLIP_S for annotation in kept):
        raise AnnotationError(
            f"{out}: ratings of clips that are not {CLIP_S:g} s long: QVHighlights has no word for that"
        )
    return {out: json_lines(_row(annotation) for annotation in kept)}


def encode_windows(out: Path, annotations: Sequence[Annotation], log: ReadLog) -> Mapping[Path, bytes]:
    """As lighthouse publishes Charades-STA, TACoS and ActivityNet Captions: windows alone, hidden rows without."""
    kept = _not_absent(annotations, log)
    tell_lost(kept, log, "saliency", "boxes", "masks", "concept", "split")
    rows = (_row(annotation) for annotation in kept)
    return {out: json_lines({key: row[key] for key in _WINDOW_KEYS if key in row} for row in rows)}


_WINDOW_KEYS = ("qid", "query", "duration", "vid", "relevant_windows")


def encode_submission(out: Path, annotations: Sequence[Annotation], log: ReadLog) -> Mapping[Path, bytes]:
    """What somebody would submit who knows the truth: every window with score 1, the mean rating of every clip (0 where
    nobody rated). For checking an evaluator, whose R1 must be 100. `qle localize --format jsonl` makes real ones."""
    rows: dict[str, dict[str, Any]] = {}
    for annotation, (start_s, end_s) in single_windows(annotations, ReadLog()):
        row = rows.setdefault(annotation.qid, _asked(annotation) | {"pred_relevant_windows": []})
        row["pred_relevant_windows"].append([plain(start_s), plain(end_s), 1.0])
        if annotation.saliency is not None:
            row["pred_saliency_scores"] = _mean_ratings(annotation)
    labelled(annotations, log)
    return {out: json_lines(rows.values())}


def _not_absent(annotations: Sequence[Annotation], log: ReadLog) -> list[Annotation]:
    if absent := sum(annotation.is_absent for annotation in annotations):
        log.num_left_out += absent
        log.note(
            f"{absent:,} annotations left out: they say that their query never happens, which official tools refuse"
        )
    return [annotation for annotation in annotations if not annotation.is_absent]


def _asked(annotation: Annotation) -> dict[str, Any]:
    return {"qid": qid_to_json(annotation.qid), "query": annotation.query, "vid": annotation.video}


def _row(annotation: Annotation) -> dict[str, Any]:
    row = row_of(annotation)
    row.pop("qle", None)
    if "duration" in row:
        row["duration"] = plain(row["duration"])
    if "relevant_windows" in row:
        row["relevant_windows"] = [[plain(edge) for edge in window] for window in row["relevant_windows"]]
    return row


def _mean_ratings(annotation: Annotation) -> list[float]:
    """Mean ratings of whole clips: the evaluator counts int(duration / 2) of them."""
    assert annotation.saliency is not None
    num_clips = int(duration_of(annotation) / annotation.clip_s)
    rated = ~np.isnan(annotation.saliency)
    total = np.where(rated, annotation.saliency, 0.0).sum(axis=1, dtype=np.float64)
    means = np.zeros(num_clips)
    known = (total / np.maximum(rated.sum(axis=1), 1))[:num_clips]
    means[: len(known)] = known
    return [round(mean, 4) for mean in means.tolist()]
