"""The report: one HTML file that shows what was found, where and when, how far to trust it, and what it was made with.

    explained predictions + provenance + calibration -> page.html

It is read by people who did not run the program, perhaps years later and without a network: everything is inside the file,
every number has its unit and its meaning beside it, and nothing is claimed that was not measured.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qle.durable import replace_file
from qle.explain.clock import clock
from qle.explain.explained import ExplainedFrame, ExplainedPrediction
from qle.explain.overlay import LEGEND_GREY, legend, overlay
from qle.explain.page import isolated, page, text
from qle.explain.pictures import data_uri, shrunk
from qle.explain.timeline import attribution_strip, letters, reliability, timeline

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
BARE_MAP_SIDE = 240
"""Pixels of a map that has no picture below it."""


def write_report(
    path: Path,
    explained: Sequence[ExplainedPrediction],
    *,
    provenance: Mapping[str, Any],
    calibration: Mapping[str, Any],
) -> None:
    """Write the page; it appears when it is whole, and replaces an older one.

    `provenance`: nested names and values, shown as they are; `video`, `run` and `created` also stand in the header.
    `calibration`: `localization` (the fields of segments.Localization), `metrics` (name -> number on validation data) and
    `reliability` ((mean score, share true, rows) of each bin); each may be missing, and the page then says so.
    """
    replace_file(path, report(explained, provenance=provenance, calibration=calibration).encode("utf-8", "replace"))


def report(
    explained: Sequence[ExplainedPrediction], *, provenance: Mapping[str, Any], calibration: Mapping[str, Any]
) -> str:
    """The page as text."""
    settings = calibration.get("localization") or {}
    threshold = settings.get("threshold")
    videos = list(dict.fromkeys(one.prediction.video for one in explained))
    title = "Localization report" + (f": {videos[0]}" if len(videos) == 1 else f": {len(videos)} videos")
    body = [*_header(videos, explained, provenance)]
    for number, one in enumerate(explained, start=1):
        body += _query(number, one, threshold, names_video=len(videos) > 1)
    body += _trust(calibration)
    body += _reading(has_maps=any(frame.relevance is not None for one in explained for frame in one.frames))
    body += ["<section><details open><summary>Provenance</summary>", _facts(provenance), "</details></section>"]
    return page(title, body)


def _header(
    videos: Sequence[str], explained: Sequence[ExplainedPrediction], provenance: Mapping[str, Any]
) -> list[str]:
    facts: dict[str, Any] = {}
    if len(videos) == 1 and explained:
        facts["Video"] = f"{videos[0]} ({clock(explained[0].prediction.duration_s)})"
    else:
        facts["Videos"] = len(videos)
    facts |= {name.capitalize(): provenance[name] for name in ("run", "created") if name in provenance}
    rows = []
    for number, one in enumerate(explained, start=1):
        prediction = one.prediction
        best = prediction.moments[0] if prediction.moments else None
        found = f"{clock(best.start_s)} to {clock(best.end_s)}" if best else "none above the threshold"
        where = f"<td>{isolated(prediction.video)}</td>" if len(videos) > 1 else ""
        rows.append(
            f'<tr><td><a href="#query-{number}">{isolated(prediction.query)}</a></td>{where}<td>{_meter(prediction.presence)}'
            f'</td><td class="num">{len(prediction.moments)}</td><td>{found}</td></tr>'
        )
    where = "<th>Video</th>" if len(videos) > 1 else ""
    return [
        "<header><h1>Localization report</h1>",
        '<p class="quiet">Where the words of a query happen in a video, and what in the picture speaks for it.</p>',
        _facts(facts),
        f'</header><table class="keep"><thead><tr><th>Query</th>{where}<th>Present in the video</th>'
        f'<th class="num">Moments</th><th>Best moment</th></tr></thead><tbody>{"".join(rows)}</tbody></table>',
    ]


def _query(number: int, one: ExplainedPrediction, threshold: float | None, *, names_video: bool) -> list[str]:
    prediction = one.prediction
    is_found = prediction.presence >= PRESENT
    verdict = (
        "Found" if is_found and prediction.moments else "Uncertain" if is_found or prediction.moments else "Not found"
    )
    kind = {"Found": "yes", "Not found": "no"}.get(verdict, "")
    parts = [
        f'<section class="query" id="query-{number}"><div class="head"><h2>{isolated(prediction.query)}</h2>',
        f'<span class="verdict {kind}">{verdict}</span></div>',
    ]
    if names_video:
        parts.append(f'<p class="quiet">in {isolated(prediction.video)}, {clock(prediction.duration_s)}</p>')
    parts.append(
        f"<p>Probability that it happens anywhere in the video: <b>{prediction.presence:.2f}</b>; that it does not: "
        f"<b>{1 - prediction.presence:.2f}</b>.</p>"
    )
    if one.note:
        parts.append(f'<p class="note">{text(one.note)}</p>')
    parts += ["<h3>Score over time</h3>", timeline(one, threshold), f'<p class="quiet key">{_key(one)}</p>']
    parts += _strip(one)
    parts += _moments(one)
    parts += _frames(one)
    return [*parts, "</section>"]


def _key(one: ExplainedPrediction) -> str:
    """What the drawing holds, and no more."""
    track = one.prediction.track
    said = ["Line: calibrated probability of each row", "numbered bars: moments, best first"]
    if one.frames:
        said.append("letters: the frames below")
    if track is not None and track.uncertainty is not None:
        said.append("light band: the model's own uncertainty")
    if track is not None and not track.valid.all():
        said.append("grey: no valid picture")
    return "; ".join(said) + "."


def _strip(one: ExplainedPrediction) -> list[str]:
    found, track = one.attribution, one.prediction.track
    if found is None or track is None:
        return []
    start, end = (clock(time_s) for time_s in found.target)
    left_out = f" {abs(found.residual):.2g} of it is unaccounted for." if abs(found.residual) > 0.01 else ""
    return [
        f"<h3>What moved the score of {start} to {end}</h3>",
        attribution_strip(found, track, one.prediction.duration_s),
        f'<p class="quiet">Rows above the line raised the moment\'s score, rows below lowered it; in logits. Together they '
        f"bring it from {found.baseline:.2f} (a video in which no row stands out) to {found.logit:.2f}.{left_out}</p>",
    ]


def _moments(one: ExplainedPrediction) -> list[str]:
    if not one.prediction.moments:
        return ["<h3>Moments</h3><p>No moment reached the threshold.</p>"]
    rows = [
        f'<tr><td class="num">{rank}</td><td class="num">{clock(moment.start_s)}</td><td class="num">{clock(moment.end_s)}</td>'
        f'<td class="num">{moment.end_s - moment.start_s:.1f} s</td><td>{_meter(moment.score)}</td></tr>'
        for rank, moment in enumerate(one.prediction.moments, start=1)
    ]
    return [
        '<h3>Moments, best first</h3><table class="short"><thead><tr><th class="num">#</th><th class="num">Start</th>'
        f'<th class="num">End</th><th class="num">Duration</th><th>Probability</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    ]


def _frames(one: ExplainedPrediction) -> list[str]:
    if not one.frames:
        return []
    has_maps = any(frame.relevance is not None for frame in one.frames)
    figures = [_figure(name, frame, one) for name, frame in zip(letters(len(one.frames)), one.frames, strict=True)]
    below = "" if one.prediction.moments else " (all below the threshold)"
    parts = [f"<h3>Frames with the highest scores{below}</h3>", f'<div class="frames">{"".join(figures)}</div>']
    if has_maps:
        bar = data_uri(legend(), exact=True)
        parts.append(
            f'<div class="legend"><span>against the query {-one.scale:.2g}</span><img src="{bar}" alt="colour scale: blue is '
            f'against, yellow is for the query"><span>+{one.scale:.2g} for the query</span>'
            "<span>logits of one cell; nothing is painted at 0; one scale for all frames of this query</span></div>"
        )
    return parts


def _figure(name: str, frame: ExplainedFrame, one: ExplainedPrediction) -> str:
    inside = next(
        (k for k, m in enumerate(one.prediction.moments, start=1) if m.start_s <= frame.time_s <= m.end_s), None
    )
    images = []
    if frame.frame is not None:
        images.append((shrunk(frame.frame), "frame"))
    if frame.relevance is not None:
        below = shrunk(frame.frame) if frame.frame is not None else _bare(frame.relevance)
        images.append((overlay(below, frame.relevance, frame.scale, frame.region), "frame with relevance painted on"))
    when = clock(frame.time_s)
    shown_images = "".join(f'<img src="{data_uri(rgb)}" alt="{what} at {when}">' for rgb, what in images)
    score = "" if frame.probability is None else f", probability {frame.probability:.2f}"
    place = f", in moment {inside}" if inside else ", in no moment"
    return f"<figure>{shown_images}<figcaption><b>{name}</b> {when}{score}{place}</figcaption></figure>"


def _bare(relevance: np.ndarray) -> np.ndarray:
    rows, cols = relevance.shape
    factor = BARE_MAP_SIDE / max(rows, cols)
    return np.full((round(rows * factor), round(cols * factor), 3), LEGEND_GREY, np.uint8)


def _trust(calibration: Mapping[str, Any]) -> list[str]:
    metrics, settings = calibration.get("metrics") or {}, calibration.get("localization") or {}
    bins = calibration.get("reliability") or ()
    parts = ['<section class="keep"><h2>How far to trust the score</h2><div class="two"><div>']
    parts.append(
        "<p>A score is meant as a probability: of all stretches with score 0.8, the query should happen in 8 of 10. The scale "
        "was fitted on validation videos; on videos of another kind (another centre, device or procedure) it may not hold.</p>"
    )
    if metrics:
        parts += ["<h3>Measured on the run's validation videos</h3>", _numbers(metrics)]
    else:
        parts.append(
            '<p class="note">This run holds no measurement of its calibration: take the scores as an order only.</p>'
        )
    if settings:
        parts += ["<h3>Constants from scores to moments</h3>", _facts(settings)]
    parts.append("</div>")
    if bins:
        parts.append(f"<figure>{reliability(bins)}<figcaption>Dots on the line: scores are probabilities. Below it: too sure. "
                     "Larger dots: more rows.</figcaption></figure>")  # fmt: skip
    return [*parts, "</div></section>"]


def _reading(*, has_maps: bool) -> list[str]:
    parts = [
        "<section><details><summary>How to read this page</summary>",
        "<p>The line is the probability, for each row of the video (a sampled frame, or a clip), that the query happens there. "
        "Green bars are the moments that were found; letters mark where the pictures below were taken. Grey stretches had no "
        "valid picture.</p>",
    ]
    if not has_maps:
        return [*parts, "<p>A score does not replace looking at the video.</p></details></section>"]
    return [
        *parts,
        "<p>Colours over a frame show the relevance map: the mean of its cells is the row's own score (a logit) before rows "
        "are compared over time. Yellow cells raise it, blue cells lower it, and nothing is painted where a cell does neither. "
        "Maps are not stretched: a frame without colour is a frame in which little was found.</p>",
        "<p>A map shows what the model used, not what is medically there, and it is coarse: each cell has already taken in its "
        "surroundings. Neither a map nor a score replaces looking at the video.</p></details></section>",
    ]


def _meter(probability: float) -> str:
    width = round(100 * float(np.clip(probability, 0, 1)))
    return f'<span class="meter" aria-hidden="true"><i style="width:{width}%"></i></span>{probability:.2f}'


def _numbers(metrics: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><td>{text(_metric_name(name))}</td><td class="num">{text(_value(value))}</td></tr>'
        for name, value in metrics.items()
    )
    return f'<table class="short"><tbody>{rows}</tbody></table>'


def _metric_name(name: str) -> str:
    """As people write it: "calibration ece" -> "calibration: ECE (expected calibration error)"."""
    group, _, last = name.rpartition(" ")
    said = METRIC_WORDS.get(last, last.replace("_", " "))
    return f"{group}: {said}" if group.isalpha() and group.islower() else name


def _facts(facts: Mapping[str, Any]) -> str:
    """Nested names and values."""
    parts = []
    for name, value in facts.items():
        inner = _facts(value) if isinstance(value, Mapping) and value else isolated(_value(value))
        parts.append(f"<dt>{text(str(name).replace('_', ' '))}</dt><dd>{inner}</dd>")
    return f'<dl class="facts">{"".join(parts)}</dl>'


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return "none" if value is None else str(value)
