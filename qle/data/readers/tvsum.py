"""TVSum as highlight detection publishes it: JSON Lines with the title of each video, and what 20 people thought of its clips.

    {"qid": "J0nA4VgnoCo", "query": "#0001: FLAT TIRE", "vid": "J0nA4VgnoCo", "duration": 292, "domain": "VT",
     "label": [[5, 3, ...], ...], "relevant_windows": null, "relevant_clip_ids": null}

One row of `label` is a clip of 2 s, one column a person, 1 to 5. `duration` counts clips there, not seconds (J0nA4VgnoCo has 292
clips and lasts 585 s); files made later have seconds and the sum of the 20. Which of the two a row has is seen from the number of
its clips. There are ratings and no windows: rows are not labelled with moments, and the domain, over which results are
averaged, is kept in `origin`.
"""

from pathlib import Path
from typing import Any

import numpy as np

from qle.data.annotations import (
    Annotation,
    checked_list,
    checked_name,
    checked_number,
    checked_text,
    checked_video,
)
from qle.data.readers.json_items import json_rows
from qle.data.readlog import BadRow, ReadLog

CLIP_S = 2.0


def read(source: Path, log: ReadLog) -> list[Annotation]:
    annotations: list[Annotation] = []
    lines: dict[str, int] = {}
    num_rows = num_counts = 0
    for line, row in json_rows(source, log):
        num_rows += 1
        try:
            annotation, is_count = _annotation(row)
            if lines.setdefault(annotation.qid, line) != line:
                raise BadRow("qid", f"{annotation.qid!r} stands in line {lines[annotation.qid]} too")
        except BadRow as bad:
            log.bad(source, line, bad)
            continue
        num_counts += is_count
        annotations.append(annotation)
    if num_counts:
        log.note(f"{num_counts:,} durations count clips of {CLIP_S:g} s; they became seconds")
    log.close(num_rows)
    if not annotations:
        raise log.nothing_left(f"{source} holds no rated video that can be used")
    return annotations


def _annotation(row: dict[str, Any]) -> tuple[Annotation, bool]:
    """And whether its duration counts clips."""
    saliency = _ratings(row.get("label"))
    duration = checked_number("duration", row.get("duration"))
    is_count = duration == len(saliency)
    duration_s = duration * CLIP_S if is_count else duration
    if not abs(duration_s / CLIP_S - len(saliency)) <= 1:
        raise BadRow("label", f"{len(saliency)} clips of {CLIP_S:g} s for a duration of {duration:g}")
    annotation = Annotation(
        qid=checked_name("qid", row.get("qid")), video=checked_video("vid", row.get("vid")),
        query=checked_text("query", row.get("query")), windows=(), is_labelled=False, duration_s=duration_s,
        saliency=saliency, clip_s=CLIP_S,
        origin={"domain": checked_text("domain", row["domain"])} if row.get("domain") is not None else {},
    )  # fmt: skip
    return annotation, is_count


def _ratings(label: Any) -> np.ndarray:
    """(clips, raters) float32."""
    clips = [checked_list("label", clip) for clip in checked_list("label", label)]
    widths = {len(clip) for clip in clips}
    if len(widths) != 1 or widths == {0}:
        raise BadRow("label", f"expected as many ratings for every clip, got {sorted(widths)}")
    return np.array([[checked_number("label", score) for score in clip] for clip in clips], dtype=np.float32)
