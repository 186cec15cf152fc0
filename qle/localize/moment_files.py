"""Found moments as text: for people (table), for programs (json, csv), for evaluators (jsonl), for players (vtt). No torch.

Predictions enter, one string leaves, the same for the same predictions: no dates, times rounded to milliseconds,
probabilities to six digits. A query that was found nowhere is always named, never left out.
"""

import csv
import io
import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qle.errors import ConfigError
from qle.eval.submissions.write import _span, six_digits, to_jsonl, to_ms
from qle.outputs import one_line
from qle.types import Prediction

OUTSIDE = "outside what this run has heard"
"""What is said of a query whose words are far from every training text."""
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\n")


def to_table(predictions: Sequence[Prediction]) -> str:
    """Columns for the eye, one line a moment, best first; blank where a line repeats the one above it."""
    rows: list[tuple[str, ...]] = [("video", "query", "moment", "score", "presence")]
    for prediction in predictions:
        names = (one_line(prediction.video), one_line(prediction.query))
        presence = f"{prediction.presence:.2f}"
        if not prediction.moments:
            # Presence has constants of its own: a query may be likely somewhere and no moment sure enough.
            rows.append((*names, _nothing(prediction), "", presence))
        for rank, moment in enumerate(prediction.moments):
            span = f"{short_clock(moment.start_s)} - {short_clock(moment.end_s)}"
            rows.append(
                (*(names if rank == 0 else ("", "")), span, f"{moment.score:.2f}", presence if rank == 0 else "")
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, tuple("-" * width for width in widths))
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"


def _nothing(prediction: Prediction) -> str:
    """Why a query has no moment."""
    if prediction.is_outside:
        return "not known: " + OUTSIDE
    return "none sure enough" if prediction.presence >= 0.5 else "absent"


def to_json(
    predictions: Sequence[Prediction],
    provenance: Mapping[str, Any] | None = None,
    *,
    failures: Mapping[str, str] | None = None,
    with_tracks: bool = False,
) -> str:
    """One object: where the numbers come from, all predictions, and why videos have none."""
    entries = [_prediction(prediction, with_tracks=with_tracks) for prediction in predictions]
    values = {"provenance": provenance or {}, "predictions": entries, "failures": failures or {}}
    return json.dumps(values, indent=2, allow_nan=False) + "\n"


def to_csv(predictions: Sequence[Prediction]) -> str:
    """One line a moment; an absent query has one line with rank 0 and no times.

    Text that a spreadsheet would run as a formula gets an apostrophe before it, as spreadsheets do themselves.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["video", "qid", "query", "rank", "start_s", "end_s", "score", "presence"])
    for prediction in predictions:
        names = [cell(_printable(name)) for name in (prediction.video, prediction.qid or "", prediction.query)]
        presence = six_digits(prediction.presence)
        if not prediction.moments:
            writer.writerow([*names, 0, "", "", "", presence])
        for rank, moment in enumerate(prediction.moments, start=1):
            writer.writerow([*names, rank, *_span(moment), presence])
    return out.getvalue()


def to_vtt(predictions: Sequence[Prediction]) -> str:
    """WebVTT: a cue for each moment, in order of time, for any player that shows subtitles of this one video."""
    videos = {prediction.video for prediction in predictions}
    if len(videos) > 1:
        raise ConfigError(
            f"a .vtt file belongs to one video, and {len(videos)} were searched\n"
            "choose one with --video-id, or use --format json, jsonl or csv"
        )
    cues = []
    blocks = ["WEBVTT"]
    for prediction in predictions:
        if not prediction.moments:  # "-->" cannot stand in a note either, so it is escaped as cue text is
            blocks.append(f"NOTE absent ({prediction.presence:.2f}): {_escaped(prediction.query)}")
        for moment in prediction.moments:
            start, end = to_ms(moment.start_s), to_ms(moment.end_s)
            cues.append((start, max(end, start + 0.001), f"{_escaped(prediction.query)} ({moment.score:.2f})"))
    for number, (start, end, text) in enumerate(sorted(cues), start=1):
        blocks.append(f"{number}\n{_vtt_clock(start)} --> {_vtt_clock(end)}\n{text}")
    return "\n\n".join(blocks) + "\n"


FORMATS = ("table", "json", "jsonl", "csv", "vtt")
"""What --format may be."""


def render(
    kind: str,
    predictions: Sequence[Prediction],
    *,
    provenance: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
    failures: Mapping[str, str] | None = None,
    with_tracks: bool = False,
) -> str:
    """The text of one of FORMATS."""
    if kind == "json":
        return to_json(predictions, provenance, failures=failures, with_tracks=with_tracks)
    if kind == "jsonl":
        return to_jsonl(predictions, names)
    return {"table": to_table, "csv": to_csv, "vtt": to_vtt}[kind](predictions)


def _prediction(prediction: Prediction, *, with_tracks: bool) -> dict[str, Any]:
    values: dict[str, Any] = {
        "video": prediction.video,
        "query": prediction.query,
        "qid": prediction.qid,
        "duration_s": to_ms(prediction.duration_s),
        "presence": six_digits(prediction.presence),
        "absent": six_digits(1 - prediction.presence),
        "moments": [
            {"start_s": to_ms(moment.start_s), "end_s": to_ms(moment.end_s), "score": six_digits(moment.score)}
            for moment in prediction.moments
        ],
    }
    familiarity = None if prediction.track is None else prediction.track.familiarity
    if familiarity is not None:
        values["words"] = {
            "distance": six_digits(familiarity.distance),
            "understood": six_digits(familiarity.probability),
            "is_outside": familiarity.is_outside,
        }
    if with_tracks:
        values["track"] = _track(prediction)
    return values


def _track(prediction: Prediction) -> dict[str, Any] | None:
    track = prediction.track
    if track is None:
        return None
    values: dict[str, Any] = {
        "times_s": [to_ms(time) for time in track.times_s],
        "edges_s": [to_ms(edge) for edge in track.edges_s],
        "valid": track.valid.tolist(),
        "logit": _numbers(track.logit),
    }
    for name, numbers in (
        ("probability", prediction.probability), ("raw_logit", track.raw_logit), ("uncertainty", track.uncertainty)
    ):  # fmt: skip
        if numbers is not None:
            values[name] = _numbers(numbers)
    return values


def _numbers(values: np.ndarray) -> list[float | None]:
    """JSON has no NaN."""
    return [round(value, 6) if np.isfinite(value) else None for value in np.asarray(values, np.float64).tolist()]


def cell(text: str) -> str:
    """A lone carriage return is not quoted by Python before 3.13, and readers would end the line there."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{lines}" if lines.startswith(FORMULA_SIGNS) else lines


def _printable(text: str) -> str:
    """Without what would move a cursor or colour a screen; lines and tabs stay, which a quoted cell may hold."""
    return "".join(
        "\ufffd" if unicodedata.category(sign) in ("Cc", "Cs") and sign not in "\r\n\t" else sign for sign in text
    )


def _escaped(text: str) -> str:
    return one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def short_clock(seconds: float) -> str:
    """12.3 -> "0:12.3", 3723.4 -> "1:02:03.4"."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:{minutes:02d}" if hours else f"{minutes}") + f":{rest // 10:02d}.{rest % 10}"


def _vtt_clock(seconds: float) -> str:
    """HH:MM:SS.mmm; hours may have more digits."""
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}.{thousandths:03d}"
