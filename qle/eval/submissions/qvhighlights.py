"""The QVHighlights protocol: moments by mAP and R1 in classes of length, highlights by mAP and HIT@1, as its program prints them.

    rows of annotations + rows of predictions -> columns (submissions.py) -> {"brief": ..., "HL-min-Fair": ..., "full": ...}

Percentages with two decimals. Moments: mAP over the first ten windows of a list, ordered by score, at overlaps 0.5 to 0.95;
R1 of the first window of the file; a class (short 0-10 s, middle -30 s, long -150 s) keeps targets of that length only.
Highlights: clips of 2 s, three raters, positive from 2 (Fair), 3 (Good) or 4 (VeryGood) on.

Two ways that agree on clean input. `published=True` repeats the official program to the letter, with what is wrong in it:
  - 0 / 0 overlap (two windows without length, however far apart) is a hit at every threshold;
  - a reversed window enters with a negative length;
  - clips without a score get 0, which puts them in front of all that are negative;
  - queries without prediction drop out where the sets of queries may differ;
  - a clip number below 0 counts from the end; the first row decides for all what is measured;
  - of several rows of one query the last counts, but mAP takes the windows of all of them, ten of each.
The default counts the first as a miss, refuses reversed windows, targets without length, negative clips, repeated queries and
rows that differ in their keys, puts clips without score last, and counts unanswered queries as misses. Where the official
program stops, both are an AnnotationError: other queries than annotated, no target in a class of length, empty lists, windows
without score, missing keys, clips behind the end; and where it computes with NaN: values that are no numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from qle.errors import AnnotationError
from qle.eval.moments.detection import BENCHMARK_TIOU, hits, list_average_precision, overlaps, part_of
from qle.eval.moments.highlights import LEVELS, clip_average_precision
from qle.eval.submissions.rows import NUM_RATERS, ClipGroup, MomentColumns, Row, clip_groups, moment_columns, pair_rows

CLASSES = {"short": (0, 10), "middle": (10, 30), "long": (30, 150), "full": None}
"""Lengths of targets in seconds, above the first and at most the second; full: all of them, also those of no class."""
NAMES = ("ground truth", "predictions")


def evaluate_submission(
    ground_truth: Sequence[Row],
    predictions: Sequence[Row],
    *,
    match_number: bool = True,
    published: bool = False,
    names: tuple[str, str] = NAMES,
) -> dict[str, Any]:
    """Metrics in the order of the official program. `names`: of the two files, for messages."""
    pairs = pair_rows(ground_truth, predictions, match_number=match_number, published=published, names=names)
    brief: dict[str, float] = {}
    tables: dict[str, Any] = {}
    if pairs.has_windows:
        moments = _moments(moment_columns(pairs, published=published), names[0], published=published)
        tables |= moments
        brief |= _moments_brief(moments)
    if pairs.has_saliency:
        liked = _highlights(clip_groups(pairs, published=published), pairs.num_queries)
        tables |= liked
        brief |= {f"{name}-{key[3:]}": value for name, entries in liked.items() for key, value in entries.items()}
    return {"brief": brief, **dict(sorted(tables.items()))}


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Entries of two results that are not equal, by their dotted names."""
    differences: dict[str, tuple[float, float]] = {}
    for name, value in ours.items():
        if isinstance(value, Mapping):
            differences |= {f"{name}.{key}": both for key, both in differing(value, theirs[name]).items()}
        elif value != theirs[name]:
            differences[name] = (value, theirs[name])
    return differences


def _moments(columns: MomentColumns, name: str, *, published: bool) -> dict[str, dict[str, dict[str, float]]]:
    windows = columns.windows
    length_s = windows.end_s - windows.start_s
    overlap = overlaps(columns.lists, windows, undefined=np.inf if published else 0.0)
    rank1 = _rank1_overlap(columns, undefined=np.inf if published else 0.0)
    tables = {}
    for class_name, limits in CLASSES.items():
        chosen = np.ones(len(length_s), bool) if limits is None else (limits[0] < length_s) & (length_s <= limits[1])
        part = part_of(windows, chosen)
        asked = np.flatnonzero(part.counts)
        if limits is not None and not len(asked):
            raise AnnotationError(
                f"{name}: no target is longer than {limits[0]} s and at most {limits[1]} s long, so the class {class_name!r} "
                "cannot be measured\nthis protocol needs targets in all of its classes; --protocol moments does not"
            )
        precision = list_average_precision(hits(overlap[chosen], part, BENCHMARK_TIOU), part.counts)[asked]
        first = _first_overlap(columns, rank1, chosen)
        by_level = precision.mean(axis=0)
        tables[class_name] = {
            "MR-mAP": {
                **{str(level): _percent(value) for level, value in zip(BENCHMARK_TIOU.tolist(), by_level, strict=True)},
                "average": _percent(by_level.mean()),
            },
            "MR-R1": {str(level): _percent((first[asked] >= level).mean()) for level in BENCHMARK_TIOU.tolist()},
        }
    return tables


def _first_overlap(columns: MomentColumns, rank1: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(queries,): overlap by the hull of the first window with the target of the class that it overlaps most, the first of
    equals; -inf where the class has none. Of several rows of a query, the last that has a target of the class."""
    owner, row = columns.windows.owner, columns.window_rows
    last = np.full(columns.windows.num_owners, -1)
    np.maximum.at(last, owner[chosen], row[chosen])
    candidates = np.flatnonzero(chosen & (row == last[owner]))
    order = candidates[np.lexsort([candidates, -rank1[0, candidates], owner[candidates]])]
    begins = order[np.flatnonzero(np.diff(owner[order], prepend=-1))]
    first = np.full(columns.windows.num_owners, -np.inf)
    first[owner[begins]] = rank1[1, begins]
    return first


def _rank1_overlap(columns: MomentColumns, undefined: float) -> np.ndarray:
    """(2, windows): overlap of each window with the first window of the file, by the union and by the hull."""
    windows = columns.windows
    start, end = columns.first_s[windows.owner].T
    both = np.maximum(np.minimum(end, windows.end_s) - np.maximum(start, windows.start_s), 0)
    union = (end - start) + (windows.end_s - windows.start_s) - both
    hull = np.maximum(end, windows.end_s) - np.minimum(start, windows.start_s)
    overlap = [
        np.divide(both, whole, out=np.full_like(both, empty), where=whole != 0)
        for whole, empty in ((union, undefined), (hull, 0.0))
    ]
    return np.where(np.isnan(start), -np.inf, np.stack(overlap))


def _moments_brief(tables: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    full = tables["full"]
    brief = {f"MR-{name}-mAP": tables[name]["MR-mAP"]["average"] for name in CLASSES}
    brief |= {f"MR-full-mAP@{level}": full["MR-mAP"][level] for level in ("0.5", "0.75")}
    brief |= {f"MR-full-R1@{level}": full["MR-R1"][level] for level in ("0.5", "0.7")}
    return dict(sorted(brief.items()))


def _highlights(groups: Iterable[ClipGroup], num_queries: int) -> dict[str, dict[str, float]]:
    precision = np.zeros((num_queries, len(LEVELS), NUM_RATERS))
    is_hit = np.zeros((num_queries, len(LEVELS)))
    least = np.array(list(LEVELS.values()), dtype=np.float64)
    for group in groups:
        positive = group.ratings[:, :, None, :] >= least[:, None]  # (group, clips, levels, raters)
        flat = positive.reshape(*positive.shape[:2], -1)
        values = clip_average_precision(group.score, flat) * group.is_answered[:, None]
        precision[group.queries] = values.reshape(len(flat), *precision.shape[1:])
        inside = group.best < group.score.shape[1]
        is_hit[group.queries[inside]] = positive[inside, group.best[inside]].any(axis=-1)
    return {
        f"HL-min-{name}": {
            "HL-mAP": _percent(precision[:, number].mean()),
            "HL-Hit1": _percent(is_hit[:, number].mean()),
        }
        for number, name in enumerate(LEVELS)
    }


def _percent(share: float) -> float:
    return float(f"{100 * share:.2f}")
