"""That a query happens at all is never less likely than that it happens here; and nothing is told where it does not."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qle.eval.rows.answers import head_answers
from qle.eval.rows.fitting import fit_localization
from qle.eval.rows.scored import ScoredQuery, row_table
from qle.segments.tracks import Localization, best_moment, moments_of, presence_of
from qle.types import Familiarity
from tests.made_scores import made_scores

OLD = Localization(threshold=0.3, low_threshold=0.2)
NEW = replace(OLD, presence_threshold=0.5)


def with_presence(scored: list[ScoredQuery], truth: float, seed: int = 0) -> list[ScoredQuery]:
    """A presence output that is `truth` higher where the query happens."""
    rng = np.random.default_rng(seed)
    return [
        replace(one, track=replace(one.track, presence_logit=float(rng.normal() + truth * (one.annotation.is_present - 0.5))))
        for one in scored
    ]  # fmt: skip


@given(st.floats(-6, 6), st.floats(0.05, 0.95))
def test_no_score_is_above_presence_and_none_is_told_below_the_threshold(logit: float, threshold: float) -> None:
    constants = replace(OLD, presence_threshold=threshold)
    for one in made_scores(num_videos=1, num_queries=2, separation=1.0):
        track = replace(one.track, presence_logit=logit)
        presence, moments = presence_of(track, constants), moments_of(track, constants)
        assert best_moment(track, constants).score <= presence + 1e-12
        assert bool(moments) == (presence >= threshold and bool(moments_of(track, OLD)))
        before = moments_of(track, OLD)
        assert [(m.start_s, m.end_s) for m in moments] == ([(m.start_s, m.end_s) for m in before] if moments else [])


def test_runs_from_before_there_was_a_threshold_say_what_they_said() -> None:
    """Presence has no say in their moments, however low it is."""
    for one in made_scores(num_videos=2):
        peak = Localization(threshold=0.3, low_threshold=0.2, presence_bias=-50.0)
        assert moments_of(one.track, peak) == moments_of(one.track, OLD)
        assert best_moment(one.track, peak) == best_moment(one.track, OLD)


def test_evaluation_says_what_localization_says() -> None:
    scored = with_presence(made_scores(num_videos=4, separation=1.0), 1.0)
    answers = head_answers(scored, row_table(scored), NEW)
    assert not answers.has_moment.all()
    for number, one in enumerate(scored):
        assert answers.presence[number] == pytest.approx(presence_of(one.track, NEW))
        mine = answers.segment.spans.owner == number
        assert answers.has_moment[number] == mine.any()
        told = sorted((m.start_s, m.end_s, m.score) for m in moments_of(one.track, NEW))
        spans = answers.segment.spans
        cut = sorted(zip(spans.start_s[mine], spans.end_s[mine], spans.score[mine], strict=True))
        assert np.array(cut) == pytest.approx(np.array(told))


def test_words_that_mean_nothing_to_the_run_are_found_nowhere() -> None:
    [one, *_] = [one for one in made_scores(separation=4.0) if one.annotation.is_present]
    near, far = Familiarity(distance=0.1, probability=0.99), Familiarity(distance=0.9, probability=0.01)
    assert (near.is_outside, far.is_outside) == (False, True)
    known, unknown = (replace(one.track, presence_logit=9.0, familiarity=words) for words in (near, far))
    assert moments_of(known, NEW)
    assert presence_of(known, NEW) == pytest.approx(0.99, abs=1e-3)
    assert moments_of(unknown, NEW) == ()
    assert presence_of(unknown, NEW) < 0.02


@pytest.mark.slow
def test_the_presence_output_is_calibrated_and_helps_moments() -> None:
    """Rows tell little, the presence output much: moments of absent queries are kept back, and weaker ones of others told."""
    plain = made_scores(24, separation=0.5, seed=1), made_scores(24, separation=0.5, seed=2)
    val, test = (with_presence(part, 8.0, seed) for seed, part in enumerate(plain))
    fitted, without = fit_localization(val), fit_localization(plain[0])
    is_present = np.array([one.annotation.is_present for one in test])
    answers = head_answers(test, row_table(test), fitted)
    rate = [answers.presence[is_present == there].mean() for there in (True, False)]
    assert rate[0] > 0.9 > 0.1 > rate[1]
    wrong = answers.has_moment != is_present
    assert wrong.mean() < 0.15
    assert wrong.mean() < (head_answers(plain[1], row_table(plain[1]), without).has_moment != is_present).mean() / 2


def test_best_steps_do_not_hang_on_the_output_of_old_heads() -> None:
    """Without the output, presence is fitted on the highest row as ever."""
    scored = made_scores(12)
    fitted = fit_localization(scored)
    assert 0 < fitted.presence_threshold <= 0.9
    assert all(presence_of(one.track, fitted) >= best_moment(one.track, fitted).score - 1e-12 for one in scored)
