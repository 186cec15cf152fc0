"""Constants of ranking from validation: probabilities that hold, and no trouble where there is nothing to fit."""

from dataclasses import replace

import numpy as np
import pytest

from qle.data.annotations import Annotation
from qle.eval.moments.fitting import fit_ranking
from qle.eval.moments.ranked import RankedQuery
from qle.segments.ranked import Candidates, Ranking, presence_of, probability_of, rank, shown_moments
from qle.segments.spans import iou, mask_of
from qle.types import ScoreTrack


def made_ranked(
    num: int = 200, *, scale: float = 1.0, offset: float = 0.0, share_absent: float = 0.3, seed: int = 0
) -> list[RankedQuery]:
    """A right span has a logit about 2 higher, a clip inside a window a saliency 3 higher."""
    rng = np.random.default_rng(seed)
    edges = np.arange(0, 151, 2.0)
    found = []
    for number in range(num):
        start = rng.uniform(0, 100)
        windows = () if rng.random() < share_absent else ((start, start + rng.uniform(10, 40)),)
        starts = rng.uniform(0, 120, 9)
        ends = starts + rng.uniform(5, 30, 9)
        if windows:
            starts[0], ends[0] = windows[0][0] + 1, windows[0][1] + 1
        right = iou(np.stack([starts, ends], 1), np.array(windows)).max(axis=1, initial=0) >= 0.5
        clips = 3 * mask_of(windows, edges) + rng.normal(size=75)
        track = ScoreTrack(times_s=edges[:-1], edges_s=edges, valid=np.ones(75, bool), logit=clips.astype(np.float32))
        candidates = Candidates(
            start_s=starts, end_s=ends, logit=(2 * right - 1.5 + rng.normal(size=9)) * scale + offset,
            window=np.zeros(9, np.int64), track=track, duration_s=150.0,
        )  # fmt: skip
        annotation = Annotation(qid=str(number), video=f"v{number}", query="q", windows=windows, duration_s=150.0)
        found.append(RankedQuery(annotation=annotation, video=annotation.video, candidates=candidates))
    return found


@pytest.mark.slow
def test_scores_are_the_share_of_spans_that_are_right() -> None:
    ranked = made_ranked(600)
    fitted = fit_ranking(ranked, Ranking())
    fresh = made_ranked(600, seed=1)
    score, right, present, is_present, clip, label = [], [], [], [], [], []
    for one in fresh:
        found = rank(one.candidates, replace(fitted, max_moments=9))
        spans = np.array([(moment.start_s, moment.end_s) for moment in found])
        score += [moment.score for moment in found]
        right += (iou(spans, np.array(one.annotation.windows)).max(axis=1, initial=0) >= 0.5).tolist()
        present.append(presence_of(one.candidates, fitted))
        is_present.append(one.annotation.is_present)
        clip.append(probability_of(one.candidates.track, fitted))
        label.append(mask_of(one.annotation.windows, one.candidates.track.edges_s))
    assert np.mean(score) == pytest.approx(np.mean(right), abs=0.02)
    assert np.mean(present) == pytest.approx(np.mean(is_present), abs=0.03)
    assert np.mean(np.array(present)[is_present]) > np.mean(np.array(present)[~np.array(is_present)]) + 0.1
    assert np.mean(clip) == pytest.approx(np.mean(label), abs=0.01)


@pytest.mark.slow
def test_units_of_the_logits_do_not_matter() -> None:
    one, other = made_ranked(), made_ranked(scale=50.0, offset=-300.0)
    a, b = fit_ranking(one, Ranking()), fit_ranking(other, Ranking())
    for left, right in zip(one, other, strict=True):
        scores = [[moment.score for moment in rank(x.candidates, r)] for x, r in ((left, a), (right, b))]
        assert scores[0] == pytest.approx(scores[1], abs=1e-6)
        assert presence_of(left.candidates, a) == pytest.approx(presence_of(right.candidates, b), abs=1e-6)
    assert a.threshold == pytest.approx(b.threshold, abs=1e-6)


@pytest.mark.slow
def test_threshold_has_the_best_f1_of_what_people_are_shown() -> None:
    ranked = made_ranked()
    fitted = fit_ranking(ranked, Ranking())

    def f1(threshold: float) -> float:
        hits = told = 0
        for one in ranked:
            moments = shown_moments(one.candidates, replace(fitted, threshold=threshold))
            told += len(moments)
            spans = np.array([(moment.start_s, moment.end_s) for moment in moments]).reshape(-1, 2)
            hits += int((iou(spans, np.array(one.annotation.windows)) >= 0.5).any(axis=0).sum())
        return 2 * hits / (told + sum(len(one.annotation.windows) for one in ranked))

    values = [f1(threshold) for threshold in np.linspace(0.02, 0.98, 25)]
    assert f1(fitted.threshold) >= max(values) - 1e-9
    assert f1(fitted.threshold) > f1(0.0) + 0.1


def test_what_was_given_and_cannot_be_fitted_stays() -> None:
    given = Ranking(
        temperature=3.0, bias=0.25, presence_bias=0.5, round_s=2.0, nms_tiou=0.9, max_moments=7, threshold=0.125
    )
    ranked = made_ranked(20)
    assert fit_ranking([], given) == given
    nothing = [replace(one, annotation=replace(one.annotation, windows=())) for one in ranked]
    assert fit_ranking(nothing, given) == given
    hidden = [replace(one, annotation=replace(one.annotation, is_labelled=False)) for one in ranked]
    assert fit_ranking(hidden, given) == given
    fitted = fit_ranking(ranked, given)
    assert (fitted.round_s, fitted.nms_tiou, fitted.max_moments) == (2.0, 0.9, 7)
    assert fitted.temperature != given.temperature


def test_validation_sets_without_absent_queries_or_without_a_right_span() -> None:
    fitted = fit_ranking(made_ranked(share_absent=0.0), Ranking())
    one = made_ranked(1, share_absent=0.0)[0]
    assert presence_of(one.candidates, fitted) == pytest.approx(rank(one.candidates, fitted)[0].score)
    ranked = made_ranked(30, share_absent=0.0)
    far = [
        replace(one, candidates=replace(one.candidates, start_s=np.full(9, 149.0), end_s=np.full(9, 150.0)))
        for one in ranked
    ]
    fitted = fit_ranking(far, Ranking())
    assert (fitted.temperature, fitted.bias, fitted.threshold) == (1.0, 0.0, 0.0)


@pytest.mark.slow
def test_head_that_says_nothing_or_the_opposite_gets_no_certainty() -> None:
    for factor in (0.0, -1.0):
        ranked = [
            replace(one, candidates=replace(one.candidates, logit=one.candidates.logit * factor))
            for one in made_ranked()
        ]
        fitted = fit_ranking(ranked, Ranking())
        scores = [moment.score for one in ranked for moment in rank(one.candidates, fitted)]
        assert max(scores) - min(scores) < 0.01
        assert fitted.presence_scale >= 0
