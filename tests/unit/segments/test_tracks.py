"""Segments: rows tile the video, constants survive smoothing, moments stay inside and apart, whatever the track looks like."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qle.errors import ConfigError
from qle.segments.spans import iou, mask_of, row_edges, rows_of, spans_of, union, window_cover
from qle.segments.tracks import Localization, best_moment, cut, moments_of, presence_of, probability_of, sigmoid, smooth
from qle.types import ScoreTrack

seconds = st.floats(0, 100, allow_subnormal=False)


@st.composite
def edges(draw: st.DrawFn, max_rows: int = 12) -> np.ndarray:
    """Of rows at any times, some of them equal, in a video that may begin late and end early."""
    times = np.sort(np.array(draw(st.lists(seconds, min_size=1, max_size=max_rows))))
    start = draw(st.floats(0, 20))
    return row_edges(times, start, start + draw(st.floats(0, 90)))


@st.composite
def tracks(draw: st.DrawFn, is_wild: bool = True) -> ScoreTrack:
    lines = draw(edges())
    rows = len(lines) - 1
    logits = st.floats(-1e4, 1e4, width=32) if is_wild else st.floats(-4, 4, width=32)
    logit = draw(arrays(np.float32, rows, elements=st.one_of(logits, st.just(math.nan)) if is_wild else logits))
    valid = draw(arrays(bool, rows)) if is_wild else np.ones(rows, bool)
    return ScoreTrack(times_s=lines[:-1], edges_s=lines, valid=valid, logit=logit)


@st.composite
def localizations(draw: st.DrawFn) -> Localization:
    low, high = sorted([draw(st.floats(0, 1)), draw(st.floats(0, 1))])
    return Localization(
        temperature=draw(st.floats(0.05, 50)), bias=draw(st.floats(-5, 5)), threshold=high, low_threshold=low,
        smoothing_s=draw(st.floats(0, 30)), min_duration_s=draw(st.floats(0, 20)), merge_gap_s=draw(st.floats(0, 20)),
        presence_scale=draw(st.floats(0, 10)), presence_bias=draw(st.floats(-5, 5)),
    )  # fmt: skip


spans = st.lists(st.tuples(seconds, seconds).map(lambda pair: (min(pair), max(pair))), max_size=6)


def track_of(logit: list[float], row_s: float = 1.0, valid: list[bool] | None = None) -> ScoreTrack:
    lines = np.arange(len(logit) + 1) * row_s
    given_valid = np.ones(len(logit), bool) if valid is None else np.array(valid)
    return ScoreTrack(
        times_s=lines[:-1] + row_s / 2, edges_s=lines, valid=given_valid, logit=np.array(logit, np.float32)
    )


# Rows


@given(st.lists(seconds, min_size=1, max_size=20), st.floats(0, 50), st.floats(0, 50))
def test_rows_tile_the_video(times: list[float], start: float, length: float) -> None:
    found = row_edges(np.sort(np.array(times)), start, start + length)
    assert len(found) == len(times) + 1
    assert found[0] == start
    assert found[-1] == start + length
    assert (np.diff(found) >= 0).all()


def test_edges_lie_half_way() -> None:
    np.testing.assert_array_equal(row_edges(np.array([0.0, 1.0, 4.0]), 0.0, 5.0), [0, 0.5, 2.5, 5])
    np.testing.assert_array_equal(row_edges(np.array([2.0]), 0.0, 5.0), [0, 5])


@pytest.mark.parametrize("times", [[], [2.0, 1.0]])
def test_edges_refuse_what_is_no_row_of_times(times: list[float]) -> None:
    with pytest.raises(ValueError, match="expected rows, in order"):
        row_edges(np.array(times), 0.0, 5.0)


@given(spans, edges())
def test_cover_is_the_covered_part_of_each_row(windows: list[tuple[float, float]], lines: np.ndarray) -> None:
    found = window_cover(windows, lines)
    for row, (start, end) in enumerate(itertools.pairwise(lines)):
        if end - start > 1e-6:
            pieces = [(max(a, start), min(b, end)) for a, b in union(windows)]
            expected = sum(max(b - a, 0) for a, b in pieces) / (end - start)
            assert found[row] == pytest.approx(expected, abs=1e-6)
        assert 0 <= found[row] <= 1


def test_half_a_row_is_enough() -> None:
    lines = np.array([0.0, 1.0, 2.0, 3.0])
    assert mask_of([(0.5, 2.4)], lines).tolist() == [True, True, False]
    assert mask_of([(0.5, 0.7), (0.6, 1.0)], lines).tolist() == [True, False, False], "overlaps count once"
    assert mask_of([], lines).tolist() == [False] * 3


def test_rows_without_length_are_labelled_by_their_time() -> None:
    assert mask_of([(1.0, 2.0)], np.array([0.0, 1.0, 1.0, 3.0, 3.0])).tolist() == [False, True, True, False]


@given(arrays(bool, st.integers(1, 20)))
def test_spans_and_masks_are_inverse(mask: np.ndarray) -> None:
    lines = np.cumsum(np.arange(len(mask) + 1) % 3 + 0.5)
    np.testing.assert_array_equal(mask_of(spans_of(mask, lines), lines), mask)


@given(edges(), seconds, seconds)
def test_rows_of_a_stretch_touch_it(lines: np.ndarray, a: float, b: float) -> None:
    start, end = sorted(np.clip([a, b], lines[0], lines[-1]))
    found = rows_of(start, end, lines)
    assert 0 <= found.start < found.stop <= len(lines) - 1
    assert lines[found.start] <= start
    assert lines[found.stop] >= end or math.isclose(lines[found.stop], end)


# Spans


@given(spans, spans)
def test_iou_is_symmetric_bounded_and_one_with_itself(
    a: list[tuple[float, float]], b: list[tuple[float, float]]
) -> None:
    left, right = np.array(a).reshape(-1, 2), np.array(b).reshape(-1, 2)
    found = iou(left, right)
    assert found.shape == (len(a), len(b))
    np.testing.assert_allclose(found, iou(right, left).T)
    assert ((found >= 0) & (found <= 1)).all()
    own = np.diag(iou(left, left)) if a else np.zeros(0)
    np.testing.assert_allclose(own[np.diff(left).ravel() > 1e-300], 1)


def test_iou_by_hand() -> None:
    np.testing.assert_allclose(iou(np.array([[0, 2]]), np.array([[1, 3], [2, 4], [0, 2], [1, 1]])), [[1 / 3, 0, 1, 0]])


@given(spans)
def test_union_keeps_the_points_and_is_apart(windows: list[tuple[float, float]]) -> None:
    found = union(windows)
    assert (found[1:, 0] > found[:-1, 1]).all()
    for point in np.linspace(0, 100, 53):
        assert any(a < point < b for a, b in windows) <= any(a <= point <= b for a, b in found)
        assert any(a < point < b for a, b in found) <= any(a <= point <= b for a, b in windows)


# Smoothing


@given(edges(), st.floats(-1e4, 1e4), st.floats(0, 200), st.data())
def test_a_constant_stays_itself_exactly(lines: np.ndarray, value: float, width: float, data: st.DataObject) -> None:
    valid = data.draw(arrays(bool, len(lines) - 1))
    found = smooth(np.full(len(lines) - 1, value), lines, valid, width)
    assert (found == value).all() if valid.any() else np.isnan(found).all()


@pytest.mark.slow
@given(tracks(), st.floats(0, 200))
def test_smoothing_stays_within_what_is_usable(track: ScoreTrack, width: float) -> None:
    usable = track.valid & np.isfinite(track.logit)
    found = smooth(track.logit, track.edges_s, track.valid, width)
    if usable.any():
        assert (found >= track.logit[usable].min()).all()
        assert (found <= track.logit[usable].max()).all()
    else:
        assert np.isnan(found).all()


@given(tracks(), st.floats(0, 200), st.floats(-1e4, 1e4, width=32))
def test_rows_that_are_not_usable_take_no_part(track: ScoreTrack, width: float, other: float) -> None:
    usable = track.valid & np.isfinite(track.logit)
    changed = np.where(usable, track.logit, np.float32(other))
    before = smooth(track.logit, track.edges_s, usable, width)
    np.testing.assert_array_equal(before, smooth(changed, track.edges_s, usable, width))


@given(tracks(is_wild=False), st.floats(0.1, 50))
def test_smoothing_is_the_mean_over_the_window(track: ScoreTrack, width: float) -> None:
    lines = track.edges_s
    found = smooth(track.logit, lines, track.valid, width)
    for row, centre in enumerate((lines[1:] + lines[:-1]) / 2):
        weight = np.clip(
            np.minimum(lines[1:], centre + width / 2) - np.maximum(lines[:-1], centre - width / 2), 0, None
        )
        if weight.sum() > 1e-6:
            assert found[row] == pytest.approx(weight @ track.logit / weight.sum(), abs=1e-4)


def test_neighbours_speak_for_rows_that_are_not_usable() -> None:
    values = np.array([9.0, 1.0, 9.0, 9.0, 4.0, 9.0])
    valid = np.array([False, True, False, False, True, False])
    np.testing.assert_allclose(smooth(values, np.arange(7.0), valid, 0.0), [1, 1, 2, 3, 4, 4])


def test_ends_are_not_padded_and_nothing_is_shifted() -> None:
    found = smooth(np.array([0.0, 0, 0, 6, 0, 0, 0]), np.arange(8.0), np.ones(7, bool), 3.0)
    np.testing.assert_allclose(found, [0, 0, 2, 2, 2, 0, 0])
    np.testing.assert_allclose(smooth(np.array([6.0, 0, 0]), np.arange(4.0), np.ones(3, bool), 2.0), [4, 1.5, 0])


# Probability, presence


@given(tracks(), localizations())
def test_probability_and_presence_are_bounded(track: ScoreTrack, localization: Localization) -> None:
    found = probability_of(track, localization)
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1)).all()
    assert 0 <= presence_of(track, localization) <= 1


def test_a_video_without_a_usable_row_holds_nothing() -> None:
    track = track_of([5.0, math.nan], valid=[False, True])
    assert probability_of(track, Localization()).tolist() == [0, 0]
    assert presence_of(track, Localization(presence_bias=5.0)) == 0
    assert moments_of(track, Localization()) == ()
    guess = best_moment(track, Localization())
    assert (guess.start_s, guess.end_s, guess.score) == (0, 2, 0)


def test_presence_is_of_the_peak() -> None:
    track = track_of([-3.0, 2.0, 9.0], valid=[True, True, False])
    assert presence_of(track, Localization(presence_scale=0.5, presence_bias=-1.0)) == 0.5


def test_sigmoid_knows_no_overflow() -> None:
    np.testing.assert_allclose(sigmoid(np.array([-np.inf, -1e4, 0, 1e4, np.inf])), [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(sigmoid(np.array([-40.0])), math.exp(-40), rtol=1e-9)


# Moments


@given(tracks(), localizations(), st.booleans())
def test_moments_are_inside_apart_and_ranked(track: ScoreTrack, localization: Localization, always_one: bool) -> None:
    found = moments_of(track, localization, always_one=always_one)
    for moment in found:
        assert track.edges_s[0] <= moment.start_s <= moment.end_s <= track.edges_s[-1]
        assert 0 <= moment.score <= 1
    assert [moment.score for moment in found] == sorted((moment.score for moment in found), reverse=True)
    in_time = sorted(found, key=lambda moment: moment.start_s)
    assert all(a.end_s <= b.start_s for a, b in itertools.pairwise(in_time))
    assert not always_one or found
    if not (probability_of(track, localization) >= np.float32(localization.threshold)).any():
        assert moments_of(track, localization) == ()
    elif found and not always_one:
        assert all(moment.end_s - moment.start_s >= localization.min_duration_s for moment in found)
        assert all(b.start_s - a.end_s >= localization.merge_gap_s for a, b in itertools.pairwise(in_time))


@pytest.mark.slow
@given(st.lists(tracks(), min_size=1, max_size=4), localizations())
def test_many_tracks_are_cut_as_each_alone(many: list[ScoreTrack], localization: Localization) -> None:
    lengths = [len(track.logit) for track in many]
    found = cut(
        np.concatenate([probability_of(track, localization) for track in many]),
        np.concatenate([track.edges_s[:-1] for track in many]),
        np.concatenate([track.edges_s[1:] for track in many]),
        np.repeat(np.arange(len(many)), lengths),
        np.concatenate([track.valid & np.isfinite(track.logit) for track in many]),
        localization,
    )
    for owner, track in enumerate(many):
        own = np.flatnonzero(found.owner == owner)
        together = {(found.start_s[k], found.end_s[k], found.score[k]) for k in own}
        alone = {(moment.start_s, moment.end_s, moment.score) for moment in moments_of(track, localization)}
        assert together == alone


def logits(*probability: float) -> list[float]:
    return [math.log(p / (1 - p)) for p in probability]


def ends(track: ScoreTrack, localization: Localization) -> list[tuple[float, float]]:
    return sorted((moment.start_s, moment.end_s) for moment in moments_of(track, localization))


def test_a_run_stays_above_the_low_threshold_and_must_reach_the_high_one() -> None:
    track = track_of(logits(0.4, 0.8, 0.4, 0.1, 0.4, 0.5, 0.1))
    assert ends(track, Localization(threshold=0.7, low_threshold=0.3)) == [(0, 3)]
    assert ends(track, Localization(threshold=0.7, low_threshold=0.7)) == [(1, 2)]


def test_close_moments_are_merged_and_far_ones_not() -> None:
    """A gap of a second was never closed in the published code: any inactive row ended the run."""
    track = track_of(logits(0.9, 0.1, 0.9, 0.1, 0.1, 0.9))
    assert ends(track, Localization()) == [(0, 1), (2, 3), (5, 6)]
    assert ends(track, Localization(merge_gap_s=1.5)) == [(0, 3), (5, 6)]
    assert ends(track, Localization(merge_gap_s=100)) == [(0, 6)]
    assert ends(track, Localization(merge_gap_s=1.5, min_duration_s=2)) == [(0, 3)], "short is judged after merging"


def test_scores_are_weighted_by_seconds_and_by_usable_rows() -> None:
    lines = np.array([0.0, 3.0, 4.0, 5.0])
    logit = np.array(logits(0.9, 0.6, 0.8), np.float32)
    track = ScoreTrack(times_s=lines[:-1], edges_s=lines, valid=np.array([True, True, False]), logit=logit)
    (moment,) = moments_of(track, Localization())
    assert (moment.start_s, moment.end_s) == (0, 5)
    assert moment.score == pytest.approx((3 * 0.9 + 0.6) / 4, abs=1e-6)


def test_one_row_and_the_last_row_are_whole() -> None:
    assert ends(track_of([3.0]), Localization()) == [(0, 1)]
    assert ends(track_of([-3.0, -3.0, 3.0]), Localization()) == [(2, 3)]


def test_the_guess_is_around_the_peak() -> None:
    track = track_of(logits(0.02, 0.2, 0.3, 0.16, 0.1, 0.29))
    assert moments_of(track, Localization()) == ()
    guess = best_moment(track, Localization())
    assert (guess.start_s, guess.end_s) == (1, 4)
    assert guess.score == pytest.approx(0.22, abs=1e-6)
    assert moments_of(track, Localization(), always_one=True) == (guess,)


def test_the_guess_survives_probabilities_that_are_zero() -> None:
    guess = best_moment(track_of([-9000.0, -8000.0, -9000.0]), Localization())
    assert (guess.start_s, guess.end_s, guess.score) == (1, 2, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0}, {"temperature": math.nan}, {"threshold": 1.5, "low_threshold": 0.5}, {"low_threshold": 0.6},
        {"smoothing_s": -1.0}, {"merge_gap_s": math.inf}, {"presence_scale": -0.1},
    ],
)  # fmt: skip
def test_constants_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="localization"):
        Localization(**settings)
