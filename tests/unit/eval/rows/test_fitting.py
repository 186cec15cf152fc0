"""Fitted constants: calibrated, better than the defaults, and sane where there is nothing to fit."""

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qle.eval.logistic import fit_logistic
from qle.eval.rows.calibration import ece
from qle.eval.rows.fitting import fit_localization, num_matched
from qle.eval.rows.report import evaluate
from qle.eval.rows.scored import ScoredQuery, probabilities, row_table, smoothed_logits
from qle.eval.windows import Windows, match
from qle.segments.tracks import Localization, Spans, calibrated, sigmoid
from tests.made_scores import made_scores, scored_query


def with_logits(scored: list[ScoredQuery], scale: float, shift: float) -> list[ScoredQuery]:
    """The same head with other units."""
    return [
        replace(one, track=replace(one.track, logit=(one.track.logit * scale + shift).astype(np.float32)))
        for one in scored
    ]


def test_the_logistic_fit_finds_what_the_data_were_drawn_from(rng: np.random.Generator) -> None:
    values = rng.normal(3, 10, 40_000)
    targets = (rng.random(40_000) < sigmoid(0.4 * values - 2)).astype(float)
    slope, bias = fit_logistic(values, targets, np.ones(40_000), centre=(1.0, 0.0), ridge=1e-3)
    assert slope == pytest.approx(0.4, rel=0.05)
    assert bias == pytest.approx(-2, rel=0.05)


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(1e-3, 10))
@settings(max_examples=30)
def test_the_logistic_fit_ends_at_a_minimum(slope: float, bias: float, ridge: float) -> None:
    rng = np.random.default_rng(5)
    values, weight = rng.normal(size=80), rng.random(80)
    targets = (values > 0.3).astype(float)  # separable: only the ridge keeps it finite

    def loss(at: tuple[float, float]) -> float:
        log_odds = at[0] * values + at[1]
        distance = (at[0] - slope) ** 2 + (at[1] - bias) ** 2
        return float(weight @ (np.logaddexp(0, log_odds) - targets * log_odds) + ridge / 2 * distance)

    found = fit_logistic(values, targets, weight, centre=(slope, bias), ridge=ridge)
    for step in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        assert loss(found) < loss((found[0] + step[0], found[1] + step[1]))


def test_probabilities_are_calibrated_after_the_fit() -> None:
    fitted = fit_localization(with_logits(made_scores(seed=1), 5.0, 3.0))
    test = with_logits(made_scores(seed=2), 5.0, 3.0)
    label = row_table(test).label
    before = sigmoid(smoothed_logits(test, 0.0))
    after = probabilities(calibrated(smoothed_logits(test, fitted.smoothing_s), fitted))
    assert ece(after, label) < 0.03 < ece(before, label)


def test_moments_are_better_than_with_the_defaults() -> None:
    val, test = made_scores(separation=0.8, seed=3), made_scores(separation=0.8, seed=4)
    fitted = evaluate(test, fit_localization(val), num_bootstrap=0)
    default = evaluate(test, Localization(), num_bootstrap=0)
    for name in ("segment.f1@0.5", "frame.f1", "absent.rejection_f1", "calibration.nll"):
        better, worse = fitted.metric(name).value, default.metric(name).value
        assert (better < worse) if "nll" in name else (better > worse), name


def test_units_of_the_logits_do_not_matter() -> None:
    plain = made_scores(seed=5)
    other = with_logits(plain, 20.0, -7.0)
    a, b = (evaluate(some, fit_localization(some), num_bootstrap=0) for some in (plain, other))
    for name in ("segment.f1@0.5", "frame.f1", "calibration.brier"):
        assert a.metric(name).value == pytest.approx(b.metric(name).value, abs=0.02), name


def test_an_easy_set_leaves_the_defaults_of_the_search() -> None:
    scored = [
        scored_query(((20.0, 35.0),), np.where((np.arange(60) >= 20) & (np.arange(60) < 35), 6.0, -6.0), qid="0"),
        scored_query((), np.full(60, -6.0), qid="1", query="smoke"),
    ]
    fitted = fit_localization(scored)
    assert (fitted.threshold, fitted.low_threshold, fitted.smoothing_s) == (0.5, 0.5, 0)
    assert (fitted.min_duration_s, fitted.merge_gap_s) == (0, 0)


def present(windows: tuple[tuple[float, float], ...], logit: float | list[float]) -> list[ScoredQuery]:
    return [scored_query(windows, np.broadcast_to(np.asarray(logit, np.float32), 20))]


@pytest.mark.parametrize(
    "scored",
    [
        [],
        present((), 1.0),
        present(((0.0, 20.0),), 1.0),
        present(((5.0, 9.0),), 0.0),
        present(((5.0, 9.0),), [float("nan")]),
        present(((5.0, 5.2),), 1.0),
        with_logits(present(((5.0, 9.0),), list(np.linspace(-1, 1, 20))), 1e4, 0.0),
        with_logits(made_scores(num_videos=2, separation=3.0), -1.0, 0.0),
        with_logits(made_scores(num_videos=2, separation=0.0), 1e-6, 0.0),
        with_logits(made_scores(num_videos=2, separation=9.0), 1e3, 0.0),
    ],
    ids=[
        "nothing", "no-positives", "no-negatives", "constant", "no-usable-row", "shorter-than-a-row", "huge", "inverted",
        "no-signal", "separable",
    ],
)  # fmt: skip
def test_where_there_is_little_to_fit_the_constants_are_sane(scored: list[ScoredQuery]) -> None:
    fitted = fit_localization(scored)
    assert np.isfinite([getattr(fitted, name) for name in Localization.__slots__]).all()
    if scored:
        label = row_table(scored).label
        report = evaluate(scored, fitted, num_bootstrap=0)
        if label.any() and not label.all() and row_table(scored).usable.any():
            assert report.metric("calibration.brier").value <= label.mean() * (1 - label.mean()) + 0.01
        else:
            assert fitted == Localization()


@given(st.lists(st.floats(0.5, 9), min_size=2, max_size=12), st.lists(st.floats(0.5, 9), min_size=2, max_size=12))
def test_counting_partners_is_greedy_matching(a: list[float], b: list[float]) -> None:
    def apart(lengths: list[float]) -> list[tuple[float, float]]:
        lines = np.cumsum(lengths)
        return [(float(x), float(y)) for x, y in list(itertools.pairwise(lines))[::2]]

    moments, windows = np.array(apart(a)).reshape(-1, 2), Windows.of([apart(b)])
    spans = Spans(
        owner=np.zeros(len(moments), int), start_s=moments[:, 0], end_s=moments[:, 1], score=np.ones(len(moments))
    )
    assert num_matched(spans, windows) == (match(spans, windows, np.array([0.5 + 1e-6])) >= 0).sum()


@pytest.mark.slow
def test_five_hundred_queries_take_seconds() -> None:
    """Of CPU time, since the machine is shared; it takes about one."""
    scored = made_scores(num_videos=50, num_queries=10, rows=100)
    started_s = time.process_time()
    fit_localization(scored)
    assert time.process_time() - started_s < 10
