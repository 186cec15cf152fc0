"""The report: one HTML file that shows what was found, where and when, how far to trust it, and what it was made with.

    explained predictions + provenance + calibration -> values of the template (here) -> page.html (page.py, template/)

It is read by people who did not run the program, perhaps years later and without a network: everything is inside the file,
every number has its unit and its meaning beside it, and nothing is claimed that was not measured. Answers stand by video, with
one timeline for all that was asked about it; the table above them has the order of the queries.
"""

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from qle.durable import replace_file
from qle.explain.explained import ExplainedPrediction, ShownFilm
from qle.explain.overlay import legend
from qle.explain.page.clock import clock
from qle.explain.page.document import page
from qle.explain.page.lanes import lanes_of
from qle.explain.page.timeline import (
    attribution_bars,
    axis,
    curve,
    letters,
    percent,
    reliability,
    side_by_side,
    strongest,
)
from qle.explain.pictures import data_uri, encoded
from qle.types import Prediction

PRESENT = 0.5
"""Presence from here on reads "found": the score is a probability."""
METRIC_WORDS = {
    "ece": "ECE (expected calibration error, 0 is best)",
    "adaptive_ece": "ECE over bins of equal size",
    "brier": "Brier score (0 is best)",
    "auroc": "AUROC (1 is best)",
    "ap": "average precision",
    "f1": "F1 at the threshold",
    "miou": "mean IoU of the best moment",
    "false_alarm_rate": "queries that do not happen, but got a moment",
    "miss_rate": "queries that happen, but got none",
    "presence_auroc": "AUROC of presence",
}
"""What `qle eval` calls briefly."""
SMALL_BAR, SMALLEST_BAR = 6.0, 2.0
"""Percent of the width from which a bar can hold its number on a telephone, and on a wide screen."""

Values = dict[str, Any]
"""What the template names."""


def write_report(
    path: Path,
    explained: Sequence[ExplainedPrediction],
    *,
    provenance: Mapping[str, Any],
    calibration: Mapping[str, Any],
    csv: str = "",
) -> None:
    """Write the page; it appears when it is whole, and replaces an older one.

    `provenance`: nested names and values, shown as they are; `video`, `run` and `created` also stand in the header.
    `calibration`: `localization` (the fields of segments.Localization), `metrics` (name -> number on validation data) and
    `reliability` ((mean score, share true, rows) of each bin); each may be missing, and the page then says so.
    `csv`: the moments as a table, which the page offers to save. A film in the folder of the page, or below it, is played.
    """
    markup = report(explained, provenance=provenance, calibration=calibration, csv=csv, folder=path.parent)
    replace_file(path, markup.encode("utf-8", "replace"))


def report(
    explained: Sequence[ExplainedPrediction],
    *,
    provenance: Mapping[str, Any],
    calibration: Mapping[str, Any],
    csv: str = "",
    folder: Path | None = None,
) -> str:
    """The page as text; `folder` is where it will lie."""
    settings, bins = calibration.get("localization") or {}, calibration.get("reliability") or ()
    queries = [_query(number, answer, settings.get("threshold")) for number, answer in enumerate(explained, start=1)]
    videos = _videos(explained, queries, folder)
    has_maps = any(frame.relevance is not None for answer in explained for frame in answer.frames)
    metrics = calibration.get("metrics") or {}
    return page(
        {
            "title": "Localization report"
            + (f": {videos[0]['name']}" if len(videos) == 1 else f": {len(videos)} videos"),
            "header": _header(videos, provenance),
            "names_video": len(videos) > 1,
            "has_maps": has_maps,
            "csv": csv
            and f"data:text/csv;charset=utf-8;base64,{base64.b64encode(csv.encode('utf-8-sig', 'replace')).decode()}",
            "queries": queries,
            "videos": videos,
            "legend": data_uri(legend(), exact=True) if has_maps else "",
            "metrics": [(_metric_name(name), _said(value)) for name, value in metrics.items()],
            "constants": _facts(settings),
            "reliability": reliability(bins) if bins else "",
            "provenance": _facts(provenance),
        }
    )


def _header(videos: Sequence[Values], provenance: Mapping[str, Any]) -> list[tuple[str, Any]]:
    about = (
        ("Video", f"{videos[0]['name']} ({videos[0]['duration']})")
        if len(videos) == 1
        else ("Videos", str(len(videos)))
    )
    return [about, *((name.capitalize(), _said(provenance[name])) for name in ("run", "created") if name in provenance)]


def _videos(explained: Sequence[ExplainedPrediction], queries: Sequence[Values], folder: Path | None) -> list[Values]:
    """Answers by video, in the order in which videos are first spoken of."""
    videos: dict[str, Values] = {}
    for answer, query in zip(explained, queries, strict=True):
        duration_s = answer.prediction.duration_s
        video = videos.setdefault(
            answer.prediction.video,
            {
                "name": answer.prediction.video,
                "duration_s": duration_s,
                "duration": clock(duration_s),
                "ticks": axis(duration_s),
                "film": None,
                "queries": [],
                "about": [],
            },
        )
        video["film"] = video["film"] or _film(answer.film, folder)
        video["queries"].append(query)
        video["about"].append(answer)
    for video in videos.values():
        video["key"] = _key(video.pop("about"))
    return list(videos.values())


def _film(film: ShownFilm | None, folder: Path | None) -> Values | None:
    """A link from the page to the film, where it lies in the same folder or below it; never to anywhere else."""
    if film is None or folder is None:
        return None
    try:
        link = film.path.absolute().resolve().relative_to(folder.absolute().resolve())
    except ValueError:
        return None
    return {"link": f"./{quote(os.fsencode(link.as_posix()))}", "begin_s": film.begin_s}


def _query(number: int, answer: ExplainedPrediction, threshold: float | None) -> Values:
    prediction = answer.prediction
    is_there = prediction.presence >= PRESENT
    verdict = (
        "Found" if is_there and prediction.moments else "Uncertain" if is_there or prediction.moments else "Not found"
    )
    moments = _moments(prediction)
    has_maps = any(frame.relevance is not None for frame in answer.frames)
    return {
        "number": number,
        "words": prediction.query,
        "video": prediction.video,
        "verdict": verdict,
        "kind": {"Found": "yes", "Not found": "no"}.get(verdict, ""),
        "presence": _share(prediction.presence),
        "absence": f"{1 - prediction.presence:.2f}",
        "note": answer.note,
        "curve": curve(prediction, threshold),
        "threshold": None
        if threshold is None
        else {"said": f"{threshold:.2f}", "top": round(100 - 100 * threshold, 1)},
        "moments": moments,
        "num_lanes": max((moment["lane"] for moment in moments), default=0) + 1,
        "frames": _frames(answer),
        "scale": f"{answer.scale:.2g}" if has_maps else "",
        "strip": _strip(answer),
    }


def _moments(prediction: Prediction) -> list[Values]:
    """Best first, with their places on the timeline."""
    lanes = lanes_of([(moment.start_s, moment.end_s) for moment in prediction.moments])
    moments = []
    for rank, (moment, lane) in enumerate(zip(prediction.moments, lanes, strict=True), start=1):
        start, end = clock(moment.start_s), clock(moment.end_s)
        left = percent(moment.start_s, prediction.duration_s)
        width = round(percent(moment.end_s, prediction.duration_s) - left, 3)
        fits = "always" if width >= SMALL_BAR else "wide" if width >= SMALLEST_BAR else "never"
        moments.append(
            {
                "rank": rank, "start_s": moment.start_s, "end_s": moment.end_s, "start": start, "end": end,
                "duration": f"{moment.end_s - moment.start_s:.1f} s", "score": _share(moment.score),
                "left": left, "width": width, "lane": lane, "fits": fits,
                "said": f"{rank}: {start} to {end}, score {moment.score:.2f}",
            }
        )  # fmt: skip
    return moments


def _frames(answer: ExplainedPrediction) -> list[Values]:
    """The pictures, and what is said of them."""
    prediction = answer.prediction
    lefts = [percent(frame.time_s, prediction.duration_s) for frame in answer.frames]
    names = letters(len(answer.frames))
    frames = []
    for name, frame, left, letter_left in zip(names, answer.frames, lefts, side_by_side(lefts), strict=True):
        ranks = [
            rank
            for rank, moment in enumerate(prediction.moments, start=1)
            if moment.start_s <= frame.time_s <= moment.end_s
        ]
        shown = encoded(frame).encoded
        assert shown is not None
        frames.append(
            {
                "picture": shown.picture, "map": shown.colours, "letter": name, "left": left, "letter_left": letter_left,
                "time_s": frame.time_s, "time": clock(frame.time_s),
                "probability": "" if frame.probability is None else f"{frame.probability:.2f}",
                "place": f"in moment {ranks[0]}" if ranks else "in no moment",
            }
        )  # fmt: skip
    return frames


def _key(about: Sequence[ExplainedPrediction]) -> str:
    """What the timeline of a video holds, and no more."""
    tracks = [answer.prediction.track for answer in about if answer.prediction.track is not None]
    said = ["Line: calibrated probability of each row", "numbered bars: moments, best first"]
    if any(answer.frames for answer in about):
        said.append("letters: the frames below")
    if any(track.uncertainty is not None for track in tracks):
        said.append("light band: the model's own uncertainty")
    if not all(track.valid.all() for track in tracks):
        said.append("grey: no valid picture")
    return "; ".join(said) + "."


def _strip(answer: ExplainedPrediction) -> Values | None:
    attribution, track = answer.attribution, answer.prediction.track
    if attribution is None or track is None:
        return None
    start, end = (clock(time_s) for time_s in attribution.target)
    is_open = abs(attribution.residual) > 0.01
    return {
        "start": start,
        "end": end,
        "most": f"{strongest(attribution):.2g}",
        "bars": attribution_bars(attribution, track, answer.prediction.duration_s),
        "baseline": f"{attribution.baseline:.2f}",
        "logit": f"{attribution.logit:.2f}",
        "left_out": f" {abs(attribution.residual):.2g} of it is unaccounted for." if is_open else "",
    }


def _share(probability: float) -> Values:
    """A number in 0..1 as it is sorted by, said and drawn."""
    return {
        "value": probability,
        "said": f"{probability:.2f}",
        "percent": round(100 * float(np.clip(probability, 0, 1))),
    }


def _metric_name(name: str) -> str:
    """As people write it: "calibration ece" -> "calibration: ECE (expected calibration error)"."""
    group, _, last = name.rpartition(" ")
    said = METRIC_WORDS.get(last, last.replace("_", " "))
    return f"{group}: {said}" if group.isalpha() and group.islower() else name


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Nested names and values, as words."""
    return [
        (str(name).replace("_", " "), _facts(value) if isinstance(value, Mapping) and value else _said(value))
        for name, value in facts.items()
    ]


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value))
    return "none" if value is None else str(value)
