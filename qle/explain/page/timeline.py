"""The score over time, as drawings and as places on a timeline.

    Prediction -> curve (inline SVG), TemporalAttribution -> bars, times -> shares of the width in percent

A drawing is stretched to the width of the page and holds no words, since words would be stretched with it: names, numbers and
moments are placed over it by the template, in percent, and keep their size on a telephone. Colours are classes of the page's
style, so that both themes and paper are right. Hours of rows are thinned to what a screen can show; the highest and lowest of
every column stay.
"""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from qle.explain.explained import TemporalAttribution
from qle.explain.page.clock import clock, ticks
from qle.types import Prediction, ScoreTrack

WIDTH, HEIGHT = 1000, 100
"""Units of a drawing, whatever its size on the page."""
LETTER = 3.4
"""Percent of the width that a letter takes on a telephone."""


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


def percent(time_s: float, duration_s: float) -> float:
    """Where on the timeline a time lies: 0 at its left end, 100 at its right one."""
    return round(100 * float(np.clip(time_s / duration_s, 0, 1)), 3) if duration_s > 0 else 0.0


def side_by_side(lefts: Sequence[float]) -> list[float]:
    """Increasing places of letters, in percent, moved apart as far as it takes to read them."""
    apart = min(LETTER, 100 / max(1, len(lefts)))
    moved: list[float] = []
    for left in lefts:
        moved.append(max(left, moved[-1] + apart) if moved else left)
    right = 100.0
    for number in range(len(moved) - 1, -1, -1):  # what was pushed over the right end goes back
        moved[number] = right = min(moved[number], right)
        right -= apart
    return [round(left, 3) for left in moved]


def axis(duration_s: float) -> list[dict[str, object]]:
    """The times below a timeline; a narrow page shows every other one of them."""
    times, step = ticks(duration_s)
    lefts = [percent(time_s, duration_s) for time_s in times]
    ends = ["first" if left < 3 else "last" if left > 97 else "" for left in lefts]
    return [
        {
            "left": left,
            "said": clock(time_s, tenths=step < 1),
            "kind": f"{'odd' if number % 2 else 'even'} {end}".strip(),
        }
        for number, (time_s, left, end) in enumerate(zip(times, lefts, ends, strict=True))
    ]


def curve(prediction: Prediction, threshold: float | None) -> Markup:
    """The track with its uncertainty, stretches without a picture, moments as light bands, the threshold."""
    parts = [_open()]
    parts += [f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y}" y2="{y}"/>' for y in (0, HEIGHT // 2, HEIGHT)]
    for moment in prediction.moments:
        x0, x1 = (_x(time_s, prediction.duration_s) for time_s in (moment.start_s, moment.end_s))
        parts.append(f'<rect class="inside" x="{x0:.1f}" y="0" width="{x1 - x0:.1f}" height="{HEIGHT}"/>')
    if prediction.track is not None and prediction.probability is not None:
        parts += _track(prediction.track, prediction.probability, prediction.duration_s)
    if threshold is not None:
        y = _y(threshold)
        parts.append(f'<line class="threshold" x1="0" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
    return Markup("".join([*parts, "</svg>"]))


def attribution_bars(attribution: TemporalAttribution, track: ScoreTrack, duration_s: float) -> Markup:
    """Bars above the line: rows that raised the score of the moment; below it: rows that lowered it."""
    middle = HEIGHT / 2
    first, values = attribution.first_row, attribution.contribution
    edges = track.edges_s[first : first + len(values) + 1]
    left, right = (_x(edge, duration_s) for edge in attribution.target)
    parts = [_open()]
    parts.append(f'<rect class="inside" x="{left:.1f}" y="0" width="{max(right - left, 1):.1f}" height="{HEIGHT}"/>')
    most = strongest(attribution)
    for start_s, end_s, value in _columns(edges, values, duration_s):
        x0, x1 = _x(start_s, duration_s), _x(end_s, duration_s)
        size = abs(value) / most * middle
        if size < 0.3:
            continue
        y, kind = (middle - size, "for") if value > 0 else (middle, "against")
        width = max(x1 - x0 - 0.3, 0.6)
        parts.append(f'<rect class="{kind}" x="{x0:.1f}" y="{y:.1f}" width="{width:.1f}" height="{size:.1f}"/>')
    parts.append(f'<line class="axis-line" x1="0" x2="{WIDTH}" y1="{middle}" y2="{middle}"/>')
    return Markup("".join([*parts, "</svg>"]))


def strongest(attribution: TemporalAttribution) -> float:
    """|contribution| of the row that moved the score most, above 0."""
    return max(float(np.abs(attribution.contribution).max(initial=0)), 1e-12)


def reliability(bins: Sequence[tuple[float, float, int]]) -> Markup:
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
    return Markup("".join(parts))


def _open() -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'


def _x(time_s: float, duration_s: float) -> float:
    return WIDTH * float(np.clip(time_s / duration_s, 0, 1)) if duration_s > 0 else 0.0


def _y(probability: float) -> float:
    return HEIGHT * (1 - float(np.clip(probability, 0, 1)))


def _track(track: ScoreTrack, probability: np.ndarray, duration_s: float) -> list[str]:
    """One piece of line for every run of valid rows; grey where the video had no picture."""
    parts = []
    for first, last in _runs(~track.valid):
        x0, x1 = _x(track.edges_s[first], duration_s), _x(track.edges_s[last], duration_s)
        parts.append(f'<rect class="invalid" x="{x0:.1f}" y="0" width="{x1 - x0:.1f}" height="{HEIGHT}"/>')
    for first, last in _runs(track.valid):
        # From edge to edge: a row stands for its whole stretch of time, and one row alone is a line, not a dot.
        times = np.concatenate(([track.edges_s[first]], track.times_s[first:last], [track.edges_s[last]]))
        values = np.pad(probability[first:last], 1, mode="edge")
        if track.uncertainty is not None:
            spread = np.pad(track.uncertainty[first:last], 1, mode="edge") / 2
            ahead, back = _points(times, values + spread, duration_s), _points(times, values - spread, duration_s)
            parts.append(f'<path class="band" d="M{" L".join(ahead + back[::-1])}z"/>')
        points = _points(times, values, duration_s)
        base = f"{points[0].split()[0]} {HEIGHT}"
        end = f"{points[-1].split()[0]} {HEIGHT}"
        parts.append(f'<path class="area" d="M{base} L{" L".join(points)} L{end}z"/>')
        parts.append(f'<path class="track" d="M{" L".join(points)}"/>')
    return parts


def _points(times_s: np.ndarray, values: np.ndarray, duration_s: float) -> list[str]:
    """ "x y" of the line; where several rows share a column of the picture, its lowest and its highest."""
    x = WIDTH * np.clip(times_s / max(duration_s, 1e-9), 0, 1)
    keep = np.arange(len(x))
    if len(x) > 2 * WIDTH:
        keep = _extremes(x.astype(int), values)
    return [f"{x[column]:.1f} {_y(values[column]):.1f}" for column in keep]


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
    column = ((edges_s[:-1] + edges_s[1:]) / 2 / max(duration_s, 1e-9) * WIDTH / 2).astype(int)
    starts = np.flatnonzero(np.diff(column, prepend=column[0] - 1)) if len(column) else np.zeros(0, int)
    stops = np.append(starts[1:], len(column))
    strongest = []
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        piece = values[start:stop]
        strongest.append((float(edges_s[start]), float(edges_s[stop]), float(piece[np.abs(piece).argmax()])))
    return strongest


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and one past the last place of every run of True."""
    change = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    return list(zip(change[::2].tolist(), change[1::2].tolist(), strict=True))
