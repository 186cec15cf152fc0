"""TVSum as highlight detection publishes it: ratings of clips of 2 s, and a duration that counts those clips."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qle.data.annotations import Annotation, qid_to_json
from qle.data.readers.tvsum import CLIP_S
from qle.data.readlog import ReadLog
from qle.data.writers.rows import json_lines, tell_lost
from qle.errors import AnnotationError


def encode(out: Path, annotations: Sequence[Annotation], log: ReadLog) -> Mapping[Path, bytes]:
    tell_lost(annotations, log, "windows", "boxes", "masks", "concept", "split")
    return {out: json_lines(_row(annotation) for annotation in annotations)}


def _row(annotation: Annotation) -> dict[str, Any]:
    saliency = annotation.saliency
    if saliency is None or annotation.clip_s != CLIP_S or np.isnan(saliency).any():
        raise AnnotationError(
            f"annotation {annotation.qid!r} of {annotation.video!r}: TVSum has a rating for every clip of {CLIP_S:g} s"
        )
    row: dict[str, Any] = {
        "qid": qid_to_json(annotation.qid),
        "query": annotation.query,
        "duration": len(saliency),
        "vid": annotation.video,
        "relevant_clip_ids": None,
        "relevant_windows": None,
        "label": [[round(score, 6) for score in clip] for clip in saliency.tolist()],
    }
    return row | ({"domain": annotation.origin["domain"]} if "domain" in annotation.origin else {})
