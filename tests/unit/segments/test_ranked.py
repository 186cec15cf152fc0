"""Ranked spans: order, bounds, rounding, suppression, and moments that several windows see."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qle.errors import ConfigError
from qle.segments.ranked import Candidates, Ranking, presence_of, probability_of, rank, shown_moments, suppress, within
from qle.segments.spans import iou
from qle.types import ScoreTrack


def made(*spans: tuple[float, ...], duration_s: float = 150.0, windows_s: object = None) -> Candidates:
    """Spans (start, end, logit) or (start, end, logit, window)."""
    rows = np.array([(*span, 0.0)[:4] for span in spans], np.float64).reshape(-1, 4)
    edges = np.linspace(0, duration_s, 11)
    track = ScoreTrack(
        times_s=edges[:-1], edges_s=edges, valid=np.ones(10, bool), logit=np.arange(10, dtype=np.float32)
    )
    return Candidates(
        start_s=rows[:, 0], end_s=rows[:, 1], logit=rows[:, 2], window=rows[:, 3].astype(np.int64), track=track,
        duration_s=duration_s, windows_s=None if windows_s is None else np.array(windows_s, np.float64),
    )  # fmt: skip


def spans_of(candidates: Candidates, **constants: float) -> list[tuple[float, float]]:
    return [(one.start_s, one.end_s) for one in rank(candidates, Ranking(**constants))]  # type: ignore[arg-type]


def test_best_first_with_calibrated_scores_and_every_span_stays() -> None:
    found = rank(made((0, 10, -1), (1, 10, 3), (50, 60, 0)), Ranking(temperature=2.0, bias=0.5))
    assert [one.start_s for one in found] == [1, 50, 0]
    assert found[0].score == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert len(rank(made(*[(k, k + 5, k) for k in range(20)]), Ranking(max_moments=3))) == 3


def test_spans_that_are_all_but_certain_do_not_tie() -> None:
    """Their probabilities are all 1 in double precision, and the order of the logits is what is left of them."""
    found = rank(made((0, 5, 60), (5, 10, 62), (10, 15, 61)), Ranking())
    assert [one.start_s for one in found] == [5, 10, 0]
    assert [one.score for one in found] == [1.0, 1.0, 1.0]


def test_nothing_leaves_the_video_and_nothing_loses_its_length() -> None:
    assert spans_of(made((-3, 8, 2), (140, 170, 1))) == [(0, 8), (140, 150)]
    # Halves go to the even multiple; what would vanish takes in the multiples around it.
    assert spans_of(made((3, 9, 3), (5, 13, 2), (64, 64.4, 1), (149.5, 150, 0)), round_s=2) == [
        (4, 8), (4, 12), (64, 66), (148, 150),
    ]  # fmt: skip
    assert spans_of(made((148, 149.2, 0), duration_s=149.2), round_s=2) == [(148, 149.2)]
    ((start, end),) = spans_of(made((20, 20.000001, 0)))
    assert (start, end) == (20, pytest.approx(20.01))
    assert [(one.start_s, one.end_s, one.score) for one in rank(made(), Ranking())] == [(0, 150, 0)]


@given(
    st.lists(st.tuples(st.floats(0, 0.99), st.floats(1e-6, 1), st.floats(-50, 50)), min_size=1, max_size=12),
    st.floats(0.5, 5000),
    st.sampled_from([0.0, 1.0, 2.0, 7.3]),
    st.sampled_from([0.3, 0.7, 1.0]),
)
def test_any_candidates_give_moments_inside_the_video(
    parts: list[tuple[float, float, float]], duration_s: float, round_s: float, nms_tiou: float
) -> None:
    spans = [(start * duration_s, min(start + width, 1) * duration_s, logit) for start, width, logit in parts]
    found = rank(made(*spans, duration_s=duration_s), Ranking(round_s=round_s, nms_tiou=nms_tiou))
    assert found
    assert all(0 <= one.start_s < one.end_s <= duration_s and 0 <= one.score <= 1 for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_suppression_is_by_true_overlap_and_strict() -> None:
    """Over the hull the first two would overlap by the same; apart they never do."""
    start, end = np.array([0.0, 5.0, 20.0]), np.array([10.0, 10.0, 30.0])
    one_window = np.zeros(3, np.int64)
    assert suppress(start, end, one_window, 0.5, 10).tolist() == [0, 1, 2]  # exactly 0.5 stays
    assert suppress(start, end, one_window, 0.49, 10).tolist() == [0, 2]
    assert suppress(start, end, one_window, 1.0, 2).tolist() == [0, 1]


def test_people_are_shown_one_of_many_alike_and_nothing_below_the_threshold() -> None:
    alike = made((0, 10, 3), (0.5, 10, 2), (50, 60, 0), (80, 90, -4))
    assert [one.start_s for one in shown_moments(alike, Ranking(threshold=0.3))] == [0, 50]
    assert len(rank(alike, Ranking(threshold=0.3))) == 4
    assert shown_moments(alike, Ranking(threshold=0.99)) == ()


def test_presence_follows_the_highest_logit() -> None:
    candidates = made((0, 10, -1), (1, 10, 3))
    assert presence_of(candidates, Ranking(presence_scale=2, presence_bias=-5)) == pytest.approx(1 / (1 + np.exp(-1)))
    assert presence_of(made(), Ranking()) == 0
    found = probability_of(candidates.track, Ranking(saliency_temperature=2, saliency_bias=-1))
    assert found == pytest.approx(1 / (1 + np.exp(1 - np.arange(10) / 2)), abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0}, {"threshold": 1.2}, {"saliency_temperature": -1}, {"bias": float("nan")}, {"nms_tiou": 0}],
)
def test_constants_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="ranking"):
        Ranking(**wrong)


def test_rounding_keeps_times_that_are_multiples() -> None:
    start, end = within(np.array([2.0, 4.0]), np.array([4.0, 150.0]), 150.0, 2.0)
    assert (start.tolist(), end.tolist()) == ([2, 4], [4, 150])


# Long videos: windows of 150 s that overlap by half.

WINDOWS = [(0, 150), (75, 225), (150, 300), (225, 375), (300, 450)]


def long_video(*spans: tuple[float, ...]) -> Candidates:
    return made(*spans, duration_s=450.0, windows_s=WINDOWS)


def test_one_moment_that_two_windows_saw_whole_is_found_once() -> None:
    assert spans_of(long_video((90, 120, 2, 0), (91, 121, 3, 1), (400, 410, 1, 4))) == [(91, 121), (400, 410)]


def test_cut_view_never_wins_over_the_whole_one() -> None:
    """However sure the window is that has seen a part of it: the whole one takes over half of that probability."""
    for logit in (9.0, 0.0, -3.0):
        found = rank(long_video((135, 149, 9, 0), (135, 170, logit, 1), (151, 170, 8, 2)), Ranking())
        assert [(one.start_s, one.end_s) for one in found] == [(135, 170)]
        assert found[0].score == pytest.approx(max(0.5, 1 / (1 + np.exp(-logit))), abs=1e-3)


def test_cut_view_that_nobody_explains_is_believed_by_half() -> None:
    (found,) = rank(long_video((140, 150, 9, 0)), Ranking())
    assert (found.start_s, found.end_s, found.score) == (140, 150, pytest.approx(0.5, abs=1e-3))
    # The ends of the video are no borders that cut.
    for span in ((0, 20, 9, 0), (430, 450, 9, 4)):
        assert rank(long_video(span), Ranking())[0].score > 0.99


def test_moment_longer_than_a_window_is_joined() -> None:
    views = [(60, 150, 2, 0), (75, 225, 1, 1), (150, 300, 3, 2), (225, 330, 2, 3), (300, 330, 2, 4)]
    found = rank(long_video(*views), Ranking())
    assert [(one.start_s, one.end_s) for one in found] == [(60, 330)]
    assert found[0].score == pytest.approx(1 / (1 + np.exp(-1)))  # of its least probable part
    # One that fills the whole video too; and one that no window sees the end of stays a doubt.
    everything = [(a, b, 2, number) for number, (a, b) in enumerate(WINDOWS)]
    assert spans_of(long_video(*everything)) == [(0, 450)]
    (half,) = rank(long_video(*views[:2]), Ranking())
    assert (half.start_s, half.end_s, half.score) == (60, 225, pytest.approx(0.5 / (1 + np.exp(-2))))


def test_neighbours_at_a_border_are_not_joined() -> None:
    """One moment ends at the border of a window, another begins there: neither window covers what both saw."""
    assert spans_of(long_video((120, 149, 2, 0), (76, 100, 1, 1))) == [(120, 149), (76, 100)]


def test_a_long_video_may_have_more_moments_than_a_window() -> None:
    many = long_video(*[(10.0 * k, 10.0 * k + 5, 0, min(k // 8, 4)) for k in range(40)])
    assert len(rank(many, Ranking(max_moments=4))) == 12
    assert len(rank(made(*[(k, k + 1, 0) for k in range(9)]), Ranking(max_moments=4))) == 4


def test_other_answers_of_the_same_window_stay_where_benchmarks_want_them() -> None:
    found = spans_of(long_video((90, 120, 3, 0), (91, 121, 2, 0), (90, 121, 1, 1)))
    assert found == [(90, 120), (91, 121)]
    assert spans_of(long_video((90, 120, 3, 0), (91, 121, 2, 0)), nms_tiou=0.7) == [(90, 120)]


def test_views_with_imprecise_ends_are_still_one_moment() -> None:
    """Ends are off by 2 % of a window, half of the answers are junk: long moments over many windows are found whole."""
    rng = np.random.default_rng(0)
    windows = [(75.0 * number, 75.0 * number + 150) for number in range(30)]
    moments = [(100, 400), (520, 600), (700, 1450), (1600, 1730), (1900, 2200)]
    spans: list[tuple[float, ...]] = []
    for number, (begin, stop) in enumerate(windows):
        for start, end in moments:
            inside = max(start, begin), min(end, stop)
            if inside[1] - inside[0] > 8:
                first, last = np.clip(np.array(inside) + rng.normal(0, 3, 2), begin, stop)
                spans.append((first, last, 2 + rng.normal(0, 0.5), number))
        starts = rng.uniform(begin, stop - 10, 4)
        spans += [(start, min(stop, start + rng.uniform(5, 80)), -4 + rng.normal(0, 0.5), number) for start in starts]
    found = rank(made(*spans, duration_s=2325.0, windows_s=windows), Ranking())[: len(moments)]
    best = iou(np.array([(one.start_s, one.end_s) for one in found]), np.array(moments, np.float64)).max(axis=0)
    assert best.min() > 0.85
