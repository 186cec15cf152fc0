"""The score over time as inline SVG: track, uncertainty, threshold, moments, where the pictures were taken, and below it which
rows moved the score of a moment.

A prediction and what explains it come in, markup leaves. Colours are classes of the page's style, so that both themes and
paper are right. Hours of rows are thinned to what a screen can show; the highest and lowest of every column stay.
"""

from collections.abc import Sequence

import numpy as np

from qle.explain.clock import clock, ticks
from qle.explain.explained import ExplainedPrediction, TemporalAttribution
from qle.explain.page import text
from qle.types import Prediction, ScoreTrack

WIDTH, LEFT, RIGHT = 1000, 54, 990
TOP, BOTTOM = 12, 152
LANE = 160
MARKS = 190
AXIS = 212
HEIGHT = 232
COLUMNS = RIGHT - LEFT
LETTER = 11
SMALLEST_BAR = 3
"""Units of width of a moment that would be thinner: it must be seen in a video of hours."""


def letters(count: int) -> list[str]:
    """A, B, ... Z, AA, AB: names of pictures."""
    names = []
    for number in range(count):
        name = ""
        number += 1
        while number:
            number, rest = divmod(number - 1, 26)
            name = chr(65 + rest) + name
        names.append(name)
    return names


def timeline(explained: ExplainedPrediction, threshold: float | None) -> str:
    """The whole picture for one query."""
    prediction = explained.prediction
    summary = f"Score over {clock(prediction.duration_s)} for the query: {prediction.query}"
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(summary)}"><title>{text(summary)}</title>'
    ]
    parts += _grid(prediction.duration_s)
    parts += _moments(prediction)
    if prediction.track is not None and prediction.probability is not None:
        parts += _track(prediction.track, prediction.probability, prediction.duration_s)
    if threshold is not None:
        y = _y(threshold)
        parts.append(f'<line class="threshold" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        name_y = y - 4 if threshold < 0.9 else y + 13
        parts.append(f'<text class="end threshold-name" x="{RIGHT}" y="{name_y:.1f}">threshold {threshold:.2f}</text>')
    names = letters(len(explained.frames))
    free = float(LEFT)
    for name, frame in zip(names, explained.frames, strict=True):
        x = _x(frame.time_s, prediction.duration_s)
        letter_x = max(x, free)  # letters of frames close together stand side by side
        free = letter_x + LETTER
        parts.append(f'<path class="mark" d="M{x:.1f} {MARKS - 10}l4 6h-8z"/>')
        parts.append(f'<text class="letter" x="{letter_x:.1f}" y="{MARKS + 8}">{name}</text>')
    return "".join([*parts, "</svg>"])


def attribution_strip(attribution: TemporalAttribution, track: ScoreTrack, duration_s: float) -> str:
    """Bars above the line: rows that raised the score of the moment; below it: rows that lowered it."""
    height, middle, half = 74, 34, 28
    first, values = attribution.first_row, attribution.contribution
    edges = track.edges_s[first : first + len(values) + 1]
    left, right = (_x(edge, duration_s) for edge in attribution.target)
    label = f"What moved the score of the moment at {clock(attribution.target[0])}"
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}"><title>{label}</title>']
    parts.append(
        f'<rect class="inside" x="{left:.1f}" y="4" width="{max(right - left, 1):.1f}" height="{height - 14}"/>'
    )
    most = max(float(np.abs(values).max(initial=0)), 1e-12)
    for start_s, end_s, value in _columns(edges, values, duration_s):
        x0, x1 = _x(start_s, duration_s), _x(end_s, duration_s)
        size = abs(value) / most * half
        if size < 0.2:
            continue
        y, kind = (middle - size, "for") if value > 0 else (middle, "against")
        width = max(x1 - x0 - 0.3, 0.6)
        parts.append(f'<rect class="{kind}" x="{x0:.1f}" y="{y:.1f}" width="{width:.1f}" height="{size:.1f}"/>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{middle}" y2="{middle}"/>')
    parts.append(f'<text class="end" x="{LEFT - 6}" y="14">+{most:.2g}</text>')
    parts.append(f'<text class="end" x="{LEFT - 6}" y="{2 * middle}">-{most:.2g}</text></svg>')
    return "".join(parts)


def reliability(bins: Sequence[tuple[float, float, int]]) -> str:
    """Diagram of (mean score, share that was true, rows): on the diagonal, a score is a probability."""
    side, low = 220, 30
    total = max(sum(count for _, _, count in bins), 1)
    label = "Reliability: how often the query really happened, by score"
    parts = [f'<svg viewBox="0 0 {side + low + 12} {side + 44}" role="img" aria-label="{label}"><title>{label}</title>']
    parts += [
        f'<line class="grid" x1="{low}" x2="{low + side}" y1="{8 + side * (1 - v)}" y2="{8 + side * (1 - v)}"/>'
        f'<text class="end" x="{low - 5}" y="{12 + side * (1 - v)}">{v:g}</text>'
        f'<text class="middle" x="{low + side * v}" y="{side + 24}">{v:g}</text>'
        for v in (0, 0.5, 1)
    ]
    parts.append(f'<line class="diagonal" x1="{low}" y1="{8 + side}" x2="{low + side}" y2="8"/>')
    for score, share, count in bins:
        if count:
            x, y, radius = low + side * score, 8 + side * (1 - share), 2 + 7 * np.sqrt(count / total)
            parts.append(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>')
    parts.append(
        f'<text class="middle" x="{low + side / 2}" y="{side + 40}">score (dots: share that was true)</text></svg>'
    )
    return "".join(parts)


def _x(time_s: float, duration_s: float) -> float:
    share = float(np.clip(time_s / duration_s, 0, 1)) if duration_s > 0 else 0.0
    return LEFT + COLUMNS * share


def _y(probability: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * float(np.clip(probability, 0, 1))


def _grid(duration_s: float) -> list[str]:
    parts = []
    for value in (0, 0.5, 1):
        y = _y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="end" x="{LEFT - 6}" y="{y + 4}">{value:g}</text>')
    times, step = ticks(duration_s)
    for time_s in times:
        x = _x(time_s, duration_s)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{AXIS - 8}" y2="{AXIS - 3}"/>')
        kind = "end" if x > RIGHT - 20 else "middle"
        parts.append(f'<text class="{kind}" x="{x:.1f}" y="{AXIS + 12}">{clock(time_s, tenths=step < 1)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{AXIS - 8}" y2="{AXIS - 8}"/>')
    return parts


def _moments(prediction: Prediction) -> list[str]:
    parts = []
    for number, moment in enumerate(prediction.moments, start=1):
        x0, x1 = (_x(time_s, prediction.duration_s) for time_s in (moment.start_s, moment.end_s))
        parts.append(f'<rect class="inside" x="{x0:.1f}" y="{TOP}" width="{x1 - x0:.1f}" height="{BOTTOM - TOP}"/>')
        width = max(x1 - x0, SMALLEST_BAR)
        said = f"{number}: {clock(moment.start_s)} to {clock(moment.end_s)}, score {moment.score:.2f}"
        parts.append(
            f'<rect class="moment" x="{x0:.1f}" y="{LANE}" width="{width:.1f}" height="16" rx="2"><title>{said}</title></rect>'
        )
        if width >= 14:
            parts.append(f'<text class="on-moment" x="{x0 + width / 2:.1f}" y="{LANE + 12.5}">{number}</text>')
    return parts


def _track(track: ScoreTrack, probability: np.ndarray, duration_s: float) -> list[str]:
    """One piece of line for every run of valid rows; grey where the video had no picture."""
    parts = []
    for first, last in _runs(~track.valid):
        x0, x1 = _x(track.edges_s[first], duration_s), _x(track.edges_s[last], duration_s)
        parts.append(f'<rect class="invalid" x="{x0:.1f}" y="{TOP}" width="{x1 - x0:.1f}" height="{BOTTOM - TOP}"/>')
    for first, last in _runs(track.valid):
        # From edge to edge: a row stands for its whole stretch of time, and one row alone is a line, not a dot.
        times = np.concatenate(([track.edges_s[first]], track.times_s[first:last], [track.edges_s[last]]))
        values = np.pad(probability[first:last], 1, mode="edge")
        if track.uncertainty is not None:
            spread = np.pad(track.uncertainty[first:last], 1, mode="edge") / 2
            ahead, back = _points(times, values + spread, duration_s), _points(times, values - spread, duration_s)
            parts.append(f'<path class="band" d="M{" L".join(ahead + back[::-1])}z"/>')
        points = _points(times, values, duration_s)
        base = f"{points[0].split()[0]} {BOTTOM}"
        end = f"{points[-1].split()[0]} {BOTTOM}"
        parts.append(f'<path class="area" d="M{base} L{" L".join(points)} L{end}z"/>')
        parts.append(f'<path class="track" d="M{" L".join(points)}"/>')
    return parts


def _points(times_s: np.ndarray, values: np.ndarray, duration_s: float) -> list[str]:
    """ "x y" of the line; where several rows share a column of the picture, its lowest and its highest."""
    x = (
        np.array([_x(time_s, duration_s) for time_s in times_s])
        if len(times_s) <= COLUMNS
        else (LEFT + COLUMNS * np.clip(times_s / max(duration_s, 1e-9), 0, 1))
    )
    keep = np.arange(len(x))
    if len(x) > 2 * COLUMNS:
        keep = _extremes(x.astype(int), values)
    return [f"{x[place]:.1f} {_y(values[place]):.1f}" for place in keep]


def _extremes(column: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Places of the lowest and highest value of every column, in order; first and last place are always there."""
    starts = np.flatnonzero(np.diff(column, prepend=column[0] - 1))
    keep = {0, len(values) - 1}
    for start, stop in zip(starts, np.append(starts[1:], len(values)), strict=True):
        piece = values[start:stop]
        keep |= {int(start + piece.argmin()), int(start + piece.argmax())}
    return np.array(sorted(keep))


def _columns(edges_s: np.ndarray, values: np.ndarray, duration_s: float) -> list[tuple[float, float, float]]:
    """(start, end, value): rows, or, where they are thinner than a column, the strongest of each column."""
    column = ((edges_s[:-1] + edges_s[1:]) / 2 / max(duration_s, 1e-9) * COLUMNS / 2).astype(int)
    starts = np.flatnonzero(np.diff(column, prepend=column[0] - 1)) if len(column) else np.zeros(0, int)
    stops = np.append(starts[1:], len(column))
    found = []
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        piece = values[start:stop]
        found.append((float(edges_s[start]), float(edges_s[stop]), float(piece[np.abs(piece).argmax()])))
    return found


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and one past the last place of every run of True."""
    change = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    return list(zip(change[::2].tolist(), change[1::2].tolist(), strict=True))
