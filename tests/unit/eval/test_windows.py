"""Moment metrics against a greedy matching written as it is described, and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qle.eval.windows import (
    MAP_TIOU,
    Windows,
    best_overlap,
    boundary_errors,
    match,
    mean_average_precision,
    query_average_precision,
    share_at_least,
)
from qle.segments.spans import iou
from qle.segments.tracks import Spans

span = st.tuples(st.integers(0, 12), st.integers(1, 6)).map(lambda pair: (float(pair[0]), float(sum(pair))))
pair = st.tuples(st.lists(st.tuples(span, st.integers(0, 4)), max_size=5), st.lists(span, max_size=4, unique=True))


def spans_of_pairs(pairs: list[tuple[list, list]]) -> tuple[Spans, Windows]:
    flat = [(owner, *times, score / 4) for owner, (moments, _) in enumerate(pairs) for times, score in moments]
    columns = np.array(flat, float).reshape(-1, 4).T
    spans = Spans(owner=columns[0].astype(int), start_s=columns[1], end_s=columns[2], score=columns[3])
    return spans, Windows.of([windows for _, windows in pairs])


def greedy(moments: list, windows: list, level: float) -> list[int]:
    """Per moment the window that it takes, or -1."""
    taken = [-1] * len(moments)
    order = sorted(range(len(moments)), key=lambda k: (-moments[k][1], moments[k][0][0], k))
    free = set(range(len(windows)))
    for k in order:
        overlaps = {w: iou(np.array([moments[k][0]]), np.array([windows[w]]))[0, 0] for w in sorted(free)}
        able = {w: value for w, value in overlaps.items() if value >= level}
        if able:
            taken[k] = max(able, key=lambda w: (able[w], -w))
            free.discard(taken[k])
    return taken


@pytest.mark.slow
@given(st.lists(pair, min_size=1, max_size=4))
def test_matching_is_greedy_by_score(pairs: list[tuple[list, list]]) -> None:
    spans, windows = spans_of_pairs(pairs)
    found = match(spans, windows, MAP_TIOU)
    first = np.cumsum(windows.counts) - windows.counts
    for column, level in enumerate(MAP_TIOU):
        expected = [
            w + first[owner] if w >= 0 else -1
            for owner, (moments, truth) in enumerate(pairs)
            for w in greedy(moments, truth, level)
        ]
        assert found[:, column].tolist() == expected


@given(st.lists(pair, min_size=1, max_size=4))
def test_rank_one_is_the_best_overlap_of_the_first(pairs: list[tuple[list, list]]) -> None:
    spans, windows = spans_of_pairs(pairs)
    found = best_overlap(spans, windows)
    for owner, (moments, truth) in enumerate(pairs):
        if not truth:
            assert math.isnan(found[owner])
        elif not moments:
            assert found[owner] == 0
        else:
            first = min(range(len(moments)), key=lambda k: (-moments[k][1], moments[k][0][0], k))
            assert found[owner] == pytest.approx(iou(np.array([moments[first][0]]), np.array(truth)).max())


def test_what_is_exactly_right_gets_one_everywhere() -> None:
    """Average precision of a perfect first answer was 0 in one published evaluation."""
    pairs = [
        ([((1.0, 4.0), 4)], [(1.0, 4.0)]),
        ([((0.0, 2.0), 3), ((5.0, 9.0), 2)], [(0.0, 2.0), (5.0, 9.0)]),
        ([], []),
    ]
    spans, windows = spans_of_pairs(pairs)
    taken = match(spans, windows, MAP_TIOU)
    np.testing.assert_array_equal(mean_average_precision(spans, taken, 3), np.ones(9))
    np.testing.assert_array_equal(query_average_precision(spans, taken, windows), [1, 1, math.nan])
    np.testing.assert_array_equal(best_overlap(spans, windows), [1, 1, math.nan])
    start, end, owner = boundary_errors(spans, windows, taken[:, 4])
    assert (start.tolist(), end.tolist(), owner.tolist()) == ([0, 0, 0], [0, 0, 0], [0, 1, 1])


def test_rounding_does_not_decide_a_match() -> None:
    """0.9 s of 3 s is a tIoU of 0.3, which floating point makes 0.29999999999999993: R1@0.3 counted it, recall@0.3 did not."""
    spans, windows = spans_of_pairs([([((1.4, 4.4), 3)], [(1.4, 2.3)])])
    assert iou(np.array([[1.4, 4.4]]), np.array([[1.4, 2.3]]))[0, 0] < 0.3
    assert match(spans, windows, np.array([0.3])).tolist() == [[0]]
    assert share_at_least(best_overlap(spans, windows), 0.3).tolist() == [1]


def test_a_window_is_found_once() -> None:
    spans, windows = spans_of_pairs([([((0.0, 4.0), 3), ((0.0, 4.0), 2)], [(0.0, 4.0)])])
    taken = match(spans, windows, np.array([0.5]))
    assert taken.ravel().tolist() == [0, -1]


def test_a_window_of_another_pair_is_none() -> None:
    spans, windows = spans_of_pairs([([((0.0, 4.0), 3)], []), ([], [(0.0, 4.0)])])
    assert match(spans, windows, np.array([0.1])).ravel().tolist() == [-1]


def test_a_missed_window_costs_recall_in_average_precision() -> None:
    spans, windows = spans_of_pairs([([((0.0, 4.0), 3), ((8.0, 9.0), 1)], [(0.0, 4.0), (5.0, 7.0)])])
    assert mean_average_precision(spans, match(spans, windows, MAP_TIOU), 2)[4] == 0.5


def test_boundary_errors_are_distances_in_seconds() -> None:
    spans, windows = spans_of_pairs([([((2.0, 9.0), 3)], [(1.0, 11.0)])])
    start, end, _ = boundary_errors(spans, windows, match(spans, windows, np.array([0.5]))[:, 0])
    assert (start.tolist(), end.tolist()) == ([1], [2])


def test_nothing_proposed_and_nothing_true() -> None:
    spans, windows = spans_of_pairs([([], []), ([], [])])
    assert match(spans, windows, MAP_TIOU).shape == (0, 9)
    assert np.isnan(mean_average_precision(spans, match(spans, windows, MAP_TIOU), 0)).all()


def test_shares_skip_what_does_not_exist() -> None:
    np.testing.assert_array_equal(share_at_least(np.array([0.5, 0.3, math.nan]), 0.5), [1, 0, math.nan])
