"""Rows of a QVHighlights submission beside the rows of what is true: read, checked, and turned into columns. No torch.

    annotation rows + prediction rows -> Pairs (by qid) -> MomentColumns, ClipGroups

What the official program would stop at, or count without meaning to, is an AnnotationError that names file, row, qid and
key. `published` lets through what it merely counts wrongly (qvhighlights.py says what), so that its numbers can be repeated.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from qle.errors import AnnotationError, InputError
from qle.eval.moments.detection import SpanLists
from qle.eval.moments.highlights import by_length
from qle.eval.windows import Windows
from qle.inputs import parse_json, read_input_bytes, utf8_bytes

MOST_WINDOWS = 10
"""Windows of a prediction that count, in the order of the file; the rest is not looked at."""
NUM_RATERS = 3
CLIP_S = 2.0
MOST_CLIPS = 1_000_000
"""Clips of one video; more are refused, since arrays of that length are made."""
WINDOWS, SALIENCY = "pred_relevant_windows", "pred_saliency_scores"
GUESS = "give at least one: a best guess counts no less than nothing"
"""What to do about an empty list."""

Row = Mapping[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The objects of a JSONL file, one a line; empty lines are passed over."""
    try:
        lines = utf8_bytes(read_input_bytes(path)).split(b"\n")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise AnnotationError(
                f"{path} line {number}: no JSON ({error})\nexpected one object a line, with keys qid, {WINDOWS}, ..."
            ) from error
        if not isinstance(row, dict):
            raise AnnotationError(f"{path} line {number}: expected one JSON object a line, got {type(row).__name__}")
        rows.append(row)
    if not rows:
        raise AnnotationError(f"{path} is empty: expected one JSON object a line, a query each")
    return rows


@dataclass(frozen=True, slots=True)
class Side:
    """Rows of one file; whatever is wrong in them is refused by file, row, qid and key."""

    name: str
    rows: Sequence[Row]

    def refuse(self, number: int, key: str, reason: str, advice: str) -> NoReturn:
        qid = self.rows[number].get("qid")
        raise AnnotationError(f"{self.name}, row {number + 1} (qid {qid!r}), {key}: {reason}\n{advice}")

    def by_qid(self, *, as_text: bool = False) -> dict[Any, int]:
        """Number of the row of each qid. Officially 1 and "1" are two; our annotations know qids as text."""
        numbers_of = self.all_by_qid(as_text=as_text)
        for first, *more in numbers_of.values():
            if more:
                reason = f"stands in row {first + 1} too"
                self.refuse(more[0], "qid", reason, "keep one row a query: which counts is unclear")
        return {qid: numbers[0] for qid, numbers in numbers_of.items()}

    def all_by_qid(self, *, as_text: bool = False) -> dict[Any, list[int]]:
        """The same where a query may stand in several rows: all of them, in the order of the file."""
        numbers_of: dict[Any, list[int]] = {}
        for number, row in enumerate(self.rows):
            qid = row.get("qid")
            if isinstance(qid, bool) or not isinstance(qid, int | str):
                self.refuse(number, "qid", f"expected a number or text, got {qid!r:.80}", "every row names its query")
            numbers_of.setdefault(str(qid) if as_text else qid, []).append(number)
        return numbers_of

    def listed(self, number: int, key: str, advice: str, *, may_be_empty: bool = False) -> list[Any]:
        """The list under a key of a row."""
        value = self.rows[number].get(key)
        if not isinstance(value, list) or not (value or may_be_empty):
            state = "an empty list" if value == [] else f"expected a list, got {value!r:.80}"
            self.refuse(number, key, "missing" if value is None else state, advice)
        return value

    def numbers(self, rows: Sequence[int], lists: Sequence[list[Any]], key: str) -> np.ndarray:
        """All values of the lists of these rows end to end, float64; finite numbers and nothing else."""
        flat = checked_numbers(list(chain.from_iterable(lists)))
        if flat is None:
            for number, values in zip(rows, lists, strict=True):
                for value in values:
                    if checked_numbers([value]) is None:
                        self.refuse(number, key, f"expected finite numbers, got {value!r:.80}", "correct the row")
            raise AssertionError("numbers that are wrong together and right alone")
        return flat

    def table(
        self,
        rows: Sequence[int],
        lists: Sequence[list[Any]],
        width: int,
        key: str,
        expected: str,
        *,
        exact: bool = False,
    ) -> np.ndarray:
        """(entries, width): the first numbers of every entry of the lists of these rows, end to end."""
        for number, entries in zip(rows, lists, strict=True):
            for entry in entries:
                if not isinstance(entry, list) or len(entry) < width or (exact and len(entry) > width):
                    self.refuse(number, key, f"{expected}, got {entry!r:.80}", "correct the row")
        parts = [list(chain.from_iterable(entry[:width] for entry in entries)) for entries in lists]
        return self.numbers(rows, parts, key).reshape(-1, width)

    def forward(self, rows: Sequence[int], owner: np.ndarray, flat: np.ndarray, key: str, *, has_length: bool) -> None:
        """Refuses windows that end before they start, or with `has_length` when they start. `owner`: number in `rows`."""
        is_right = flat[:, 1] > flat[:, 0] if has_length else flat[:, 1] >= flat[:, 0]
        if not is_right.all():
            wrong = int(np.argmin(is_right))
            start, end = flat[wrong, :2]
            reason = f"[{start:g}, {end:g}] does not end after it starts ({(~is_right).sum()} such windows)"
            self.refuse(rows[owner[wrong]], key, reason, "write start before end, both in seconds")


def checked_numbers(values: list[Any]) -> np.ndarray | None:
    """None where one of them is no finite number."""
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        numbers = np.array(values, dtype=np.float64)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return numbers if np.isfinite(numbers).all() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """What is measured: queries in the order of what is true."""

    truth: Side
    predictions: Side
    all_truth_rows: tuple[tuple[int, ...], ...]
    """Rows of each query in the order of the file; several only as the published program takes them."""
    all_prediction_rows: tuple[tuple[int, ...], ...]
    """None where a query was not answered; only where that is allowed."""
    has_windows: bool
    has_saliency: bool

    @property
    def num_queries(self) -> int:
        return len(self.all_truth_rows)

    @property
    def truth_rows(self) -> tuple[int, ...]:
        """The last row of each query, which counts."""
        return tuple(numbers[-1] for numbers in self.all_truth_rows)

    @property
    def prediction_rows(self) -> tuple[int, ...]:
        """The last row of each query, which counts; -1 where it was not answered."""
        return tuple(numbers[-1] if numbers else -1 for numbers in self.all_prediction_rows)

    def truth_values(self, key: str, advice: str) -> list[list[Any]]:
        return [self.truth.listed(number, key, advice) for number in self.truth_rows]

    def predicted_values(self, key: str) -> list[list[Any]]:
        """An empty list for a query that was not answered."""
        return [self.predictions.listed(number, key, GUESS) if number >= 0 else [] for number in self.prediction_rows]


def pair_rows(
    truth: Sequence[Row], predictions: Sequence[Row], *, match_number: bool, published: bool, names: tuple[str, str]
) -> Pairs:
    """By qid. Different sets of queries are an error unless not `match_number`.

    Then queries that only the predictions have are left out; those that they lack count as misses, or with `published` are
    left out too.
    """
    true, said = Side(names[0], truth), Side(names[1], predictions)
    for side in (true, said):
        if not side.rows:
            raise AnnotationError(f"{side.name}: there are no rows, expected at least one query")
    true_rows, said_rows = (
        side.all_by_qid() if published else {qid: [number] for qid, number in side.by_qid().items()}
        for side in (true, said)
    )
    if match_number and true_rows.keys() != said_rows.keys():
        raise AnnotationError(_differences(names, true_rows, said_rows))
    shared = [qid for qid in true_rows if qid in said_rows]
    if not shared:
        raise AnnotationError(_differences(names, true_rows, said_rows))
    kept = shared if published else list(true_rows)
    has_windows, has_saliency = _parts(said, [said_rows[qid] for qid in said_rows if qid in true_rows], published)
    return Pairs(
        truth=true, predictions=said, all_truth_rows=tuple(tuple(true_rows[qid]) for qid in kept),
        all_prediction_rows=tuple(tuple(said_rows.get(qid, ())) for qid in kept),
        has_windows=has_windows, has_saliency=has_saliency,
    )  # fmt: skip


def _parts(side: Side, rows: Sequence[Sequence[int]], published: bool) -> tuple[bool, bool]:
    """Whether there are windows and saliency: the first row decides for all. `rows`: of each query."""
    numbers = sorted(chain.from_iterable(rows))
    last = {of_query[-1] for of_query in rows}
    first = side.rows[numbers[0]]
    has = WINDOWS in first, SALIENCY in first
    if not any(has):
        side.refuse(numbers[0], WINDOWS, f"missing, and so is {SALIENCY}", "a prediction has one of the two, or both")
    for number in numbers:
        for key, is_there in zip((WINDOWS, SALIENCY), has, strict=True):
            # parity: keys that the first row lacks are not looked at, nor scores of clips in a row that another repeats.
            is_read = is_there and (key == WINDOWS or number in last)
            if (key in side.rows[number]) != is_there and (is_read or not published):
                state = ("missing", "has it") if is_there else ("there", "has none")
                reason = f"{state[0]}, and row {numbers[0] + 1} {state[1]}"
                side.refuse(number, key, reason, "the first row decides what is measured: all rows need the same keys")
    return has


def _differences(names: tuple[str, str], true: Mapping[Any, Any], said: Mapping[Any, Any]) -> str:
    unanswered, unasked = [qid for qid in true if qid not in said], [qid for qid in said if qid not in true]
    if {str(qid) for qid in unanswered} & {str(qid) for qid in unasked}:
        return (
            f"{names[1]}: qids are numbers in one file and text in the other, e.g. {unanswered[0]!r} and {unasked[0]!r}\n"
            "write them as the annotations have them"
        )
    parts = [
        f"{len(some):,} queries {what}, e.g. {', '.join(map(repr, some[:3]))}"
        for some, what in ((unanswered, f"of {names[0]} have no prediction"), (unasked, "are not annotated"))
        if some
    ]
    return f"{names[1]}: {'; '.join(parts)}\nanswer every query once, or pass --allow-missing to measure with what is there"


# Moments


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentColumns:
    windows: Windows
    """What is true."""
    window_rows: np.ndarray
    """(windows,) int64: the row of the file that each stands in."""
    lists: SpanLists
    """The first MOST_WINDOWS of each row, by falling score (in the order of the file, where equal)."""
    first_s: np.ndarray
    """(queries, 2): the first in the last row of a query, whatever its score; NaN where a query was not answered."""


def moment_columns(pairs: Pairs, *, published: bool) -> MomentColumns:
    key, advice = "relevant_windows", "only labelled queries that happen can be measured; leave the others out"
    true_queries, true_rows = _end_to_end(pairs.all_truth_rows)
    queries, rows = _end_to_end(pairs.all_prediction_rows)
    true = [pairs.truth.listed(number, key, advice) for number in true_rows]
    said = [pairs.predictions.listed(number, WINDOWS, GUESS)[:MOST_WINDOWS] for number in rows]
    true_flat = pairs.truth.table(true_rows, true, 2, key, "expected [start, end] in seconds")
    flat = pairs.predictions.table(rows, said, 3, WINDOWS, "expected [start, end, score]")
    true_index = np.repeat(np.arange(len(true)), [len(some) for some in true])
    index = np.repeat(np.arange(len(said)), [len(some) for some in said])
    if not published:
        pairs.truth.forward(true_rows, true_index, true_flat, key, has_length=True)
        pairs.predictions.forward(rows, index, flat, WINDOWS, has_length=False)
    first_s = np.full((pairs.num_queries, 2), np.nan)
    begins = np.flatnonzero(np.diff(index, prepend=-1))
    first_s[queries] = flat[begins, :2]  # of several rows the last stays
    owner = queries[index]
    order = np.lexsort([-flat[:, 2], owner])
    most = MOST_WINDOWS * max(map(len, pairs.all_prediction_rows))
    return MomentColumns(
        windows=Windows(
            owner=true_queries[true_index], start_s=true_flat[:, 0], end_s=true_flat[:, 1], num_owners=pairs.num_queries
        ),
        window_rows=np.array(true_rows, dtype=np.int64)[true_index],
        lists=SpanLists.of(owner, flat[order, 0], flat[order, 1], pairs.num_queries, most),
        first_s=first_s,
    )


def _end_to_end(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, list[int]]:
    """(rows,) the query of each row, and the rows themselves, query after query."""
    return np.repeat(np.arange(len(rows)), [len(some) for some in rows]), list(chain.from_iterable(rows))


# Clips


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipGroup:
    """Queries about videos with equally many clips."""

    queries: np.ndarray
    """(group,) int64"""
    score: np.ndarray
    """(group, clips) float64, cut or filled to the number of clips."""
    ratings: np.ndarray
    """(group, clips, NUM_RATERS) float64; 0 where nobody rated."""
    best: np.ndarray
    """(group,) int64: the clip with the highest score of the whole list, the first of equals; may lie behind the last clip."""
    is_answered: np.ndarray
    """(group,) bool"""


def clip_groups(pairs: Pairs, *, published: bool) -> Iterator[ClipGroup]:
    """`published`: missing scores are 0. Else they come last, since 0 would stand before whatever is negative."""
    said = pairs.predicted_values(SALIENCY)
    score = pairs.predictions.numbers(pairs.prediction_rows, said, SALIENCY)
    first = np.cumsum([0] + [len(some) for some in said]).tolist()
    clip_counts = np.array([_num_clips(pairs.truth, number) for number in pairs.truth_rows])
    query, clip, ratings = _ratings(pairs, clip_counts, published)
    line_of = np.empty(pairs.num_queries, dtype=np.int64)
    for queries in by_length(clip_counts):
        num_clips = int(clip_counts[queries[0]])
        table = np.full((len(queries), num_clips), 0.0 if published else -np.inf)
        best = np.full(len(queries), num_clips)
        for line, number in enumerate(queries.tolist()):
            own = score[first[number] : first[number + 1]]
            table[line, : len(own)] = own[:num_clips]
            if len(own):
                best[line] = int(np.argmax(own))
        line_of.fill(-1)
        line_of[queries] = np.arange(len(queries))
        rated = np.zeros((len(queries), num_clips, NUM_RATERS))
        mine = line_of[query] >= 0
        rated[line_of[query[mine]], clip[mine]] = ratings[mine]
        is_answered = np.array([len(said[number]) > 0 for number in queries.tolist()])
        yield ClipGroup(queries=queries, score=table, ratings=rated, best=best, is_answered=is_answered)


def _num_clips(side: Side, number: int) -> int:
    value = side.rows[number].get("duration")
    duration_s = checked_numbers([value])
    if duration_s is None or not CLIP_S <= duration_s[0] < MOST_CLIPS * CLIP_S:
        reason = f"expected seconds, at least one clip of {CLIP_S:g} s, got {value!r:.80}"
        side.refuse(number, "duration", reason, "highlights need the length of the video")
    return int(duration_s[0] / CLIP_S)


def _ratings(pairs: Pairs, clip_counts: np.ndarray, published: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rated,) query and clip, (rated, NUM_RATERS) ratings."""
    side, rows, advice = pairs.truth, pairs.truth_rows, f"without ratings leave {SALIENCY} out of the predictions"
    clips = pairs.truth_values("relevant_clip_ids", advice)
    scores = pairs.truth_values("saliency_scores", advice)
    for number, some, rated in zip(rows, clips, scores, strict=True):
        if len(some) != len(rated):
            side.refuse(
                number, "saliency_scores", f"{len(rated)} for {len(some)} relevant_clip_ids", "one for each clip"
            )
    flat = side.numbers(rows, clips, "relevant_clip_ids")
    ratings = side.table(
        rows, scores, NUM_RATERS, "saliency_scores", f"expected {NUM_RATERS} ratings of a clip", exact=True
    )
    query = np.repeat(np.arange(len(clips)), [len(some) for some in clips])
    most = clip_counts[query]
    is_right = (flat == np.floor(flat)) & (flat < most) & (flat >= (-most if published else 0))
    if not is_right.all():
        wrong = int(np.argmin(is_right))
        reason = f"{flat[wrong]:g} is no clip of a video of {most[wrong]} clips (0 to {most[wrong] - 1})"
        side.refuse(rows[query[wrong]], "relevant_clip_ids", reason, f"clips are {CLIP_S:g} s long and counted from 0")
    clip = flat.astype(np.int64)
    return query, np.where(clip < 0, clip + most, clip), ratings  # below 0: counted from the end, as arrays there are
