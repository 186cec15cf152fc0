"""Intervals: resamples of histograms are resamples of rows."""

import time

import numpy as np
import pytest

from qle.eval.bootstrap import drawn, histograms, interval, mean_draws, video_draws
from qle.eval.ranking import auroc, auroc_of, average_precision, count, rank


def made_rows(rng: np.random.Generator, num_videos: int, rows: int, rate: float) -> tuple[np.ndarray, ...]:
    video = np.repeat(np.arange(num_videos), rows)
    labels = rng.random(len(video)) < rate
    lift = rng.normal(0, 0.5, num_videos)[video]
    return (rng.normal(size=len(video)) + labels * 1.5 + lift).astype(np.float32), labels, video


def test_draws_are_of_all_videos_and_repeatable() -> None:
    draws = video_draws(7, 50, seed=3)
    assert (draws.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(draws, video_draws(7, 50, seed=3))
    assert (draws != video_draws(7, 50, seed=4)).any()


@pytest.mark.parametrize("rate", [0.5, 0.03])
def test_histograms_give_the_metrics_of_the_resampled_rows(rng: np.random.Generator, rate: float) -> None:
    scores, labels, video = made_rows(rng, 12, 700, rate)
    draws = video_draws(12, 20, seed=0)
    redrawn = drawn(draws, histograms(rank(scores), labels, video, 12))
    for draw, roc, precision in zip(draws, auroc(redrawn), average_precision(redrawn), strict=True):
        rows = np.concatenate([np.flatnonzero(video == k) for k in range(12) for _ in range(int(draw[k]))])
        assert roc == pytest.approx(auroc_of(scores[rows], labels[rows]), abs=1e-3)
        assert precision == pytest.approx(float(average_precision(count(rank(scores[rows]), labels[rows]))), abs=2e-3)


def test_histograms_keep_ties_and_counts(rng: np.random.Generator) -> None:
    scores, labels, video = made_rows(rng, 5, 200, 0.3)
    scores = np.round(scores)
    counts = histograms(rank(scores), labels, video, 5)
    assert counts.positive.sum() == labels.sum()
    assert (counts.positive + counts.negative).sum(axis=1).tolist() == [200] * 5
    together = drawn(np.ones((1, 5)), counts)
    assert auroc(together)[0] == pytest.approx(auroc(count(rank(scores), labels)))


def test_the_interval_of_a_mean_is_that_of_the_theory(rng: np.random.Generator) -> None:
    values = rng.normal(size=400)
    found = interval(mean_draws(video_draws(400, 4000, seed=1), values, np.arange(400)))
    assert found is not None
    width = 1.96 * values.std() / 20
    np.testing.assert_allclose(found, [values.mean() - width, values.mean() + width], atol=0.01)


def test_the_interval_covers_the_truth_as_often_as_it_says(rng: np.random.Generator) -> None:
    hits = 0
    for trial in range(200):
        found = interval(mean_draws(video_draws(40, 400, seed=trial), rng.normal(size=40), np.arange(40)))
        assert found is not None
        hits += found[0] <= 0 <= found[1]
    assert 0.88 <= hits / 200 <= 0.99


def test_values_that_do_not_exist_take_no_part() -> None:
    draws = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    found = mean_draws(draws, np.array([1.0, np.nan, np.nan]), np.array([0, 0, 1]))
    np.testing.assert_array_equal(found, [1, 1, np.nan])
    assert interval(np.full(3, np.nan)) is None


def test_a_thousand_resamples_of_many_rows_are_quick(rng: np.random.Generator) -> None:
    """Of CPU time, since the machine is shared, and loose: row by row it would take minutes."""
    scores, labels, video = made_rows(rng, 100, 5000, 0.1)
    started_s = time.process_time()
    auroc(drawn(video_draws(100, 1000, seed=0), histograms(rank(scores), labels, video, 100)))
    assert time.process_time() - started_s < 10
