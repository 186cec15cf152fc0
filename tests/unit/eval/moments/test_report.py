"""The report of moment heads: its numbers are those of QVHighlights, its floors are known, its parts appear where they can."""

import math
from dataclasses import replace

import numpy as np
import pytest

from qle.errors import AnnotationError, ConfigError
from qle.eval.floors import priors_of
from qle.eval.moments.answers import clip_scores
from qle.eval.moments.report import VALIDATION_METRICS, evaluate_ranked, validation_value
from qle.eval.submissions.qvhighlights import evaluate_submission
from qle.segments.ranked import Ranking, rank
from tests.made_rankings import made_rankings, ranked_query, track_of

PLAIN = Ranking()


def test_its_numbers_are_those_of_qvhighlights() -> None:
    ranked = [one for one in made_rankings() if one.annotation.windows]
    report = evaluate_ranked(ranked, PLAIN, num_bootstrap=0)
    truth, said = [], []
    for one in ranked:
        annotation = one.annotation
        moments = rank(one.candidates, PLAIN)
        truth.append(
            {
                "qid": annotation.qid, "duration": annotation.duration_s, "relevant_windows": list(map(list, annotation.windows)),
                "relevant_clip_ids": list(range(len(annotation.saliency))), "saliency_scores": annotation.saliency.tolist(),
            }
        )  # fmt: skip
        said.append(
            {
                "qid": annotation.qid,
                "pred_relevant_windows": [[moment.start_s, moment.end_s, moment.score] for moment in moments],
                "pred_saliency_scores": one.candidates.track.logit.tolist(),
            }
        )
    expected = evaluate_submission(truth, said)["brief"]
    same = {
        "moments.r1@0.5": "MR-full-R1@0.5", "moments.r1@0.7": "MR-full-R1@0.7", "moments.map": "MR-full-mAP",
        "moments.map@0.5": "MR-full-mAP@0.5", "moments.map@0.75": "MR-full-mAP@0.75", "moments.short_map": "MR-short-mAP",
        "moments.middle_map": "MR-middle-mAP", "moments.long_map": "MR-long-mAP",
        "highlights.fair_map": "HL-min-Fair-mAP", "highlights.good_hit1": "HL-min-Good-Hit1",
        "highlights.very_good_map": "HL-min-VeryGood-mAP", "highlights.very_good_hit1": "HL-min-VeryGood-Hit1",
    }  # fmt: skip
    for ours, theirs in same.items():
        assert 100 * report.metric(ours).value == pytest.approx(expected[theirs], abs=0.0051), ours
    assert report.counts["short_pairs"] == sum(any(b - a <= 10 for a, b in one.annotation.windows) for one in ranked)


def test_a_perfect_and_a_wrong_answer() -> None:
    ranked = [
        ranked_query([(0, 8), (20, 40)], [(20, 40, 3), (0, 8, 2)], qid="right"),
        ranked_query([(0, 8)], [(30, 40, 3), (0, 7, 2)], qid="second", video="b.mp4"),
    ]
    found = evaluate_ranked(ranked, PLAIN, num_bootstrap=50).metrics["moments"]
    assert found["r1@0.5"].value == found["r1@0.7"].value == 0.5
    assert found["r5@0.7"].value == 1.0
    assert found["map@0.5"].value == pytest.approx((1 + 0.5) / 2)
    assert found["miou"].value == 0.5
    assert found["short_r1@0.5"].value == 0.0  # the first span of the first query is right, about another window
    assert math.isnan(found["long_map"].value)
    assert found["r1@0.5"].interval is not None


def test_floors_are_known() -> None:
    """Windows are the first half of the video: one span is always right, the whole video half, random ones sometimes."""
    ranked = [ranked_query([(0, 20)], [(30, 40, 1)], qid=str(k), video=f"{k}.mp4") for k in range(40)]
    priors = priors_of([one.annotation for one in ranked])
    report = evaluate_ranked(ranked, PLAIN, priors=priors, num_bootstrap=0)
    assert report.floor_names == ("best_span", "whole_video", "uniform")
    assert report.metric("moments.miou").floors == pytest.approx(
        {"best_span": 1.0, "whole_video": 0.5, "uniform": (1 / 6 + math.log(2) / 2) / 2}, abs=0.03
    )
    assert report.metric("moments.r1@0.5").floors["whole_video"] == 1.0
    assert report.settings["best_span"] == [0.0, 0.5]
    assert report.settings["best_span_from"] == "training"
    assert evaluate_ranked(ranked, PLAIN, num_bootstrap=0).settings["best_span_from"] == "the evaluated annotations"
    again = evaluate_ranked(ranked, PLAIN, priors=priors, num_bootstrap=0)
    assert again.to_json() == report.to_json()


def test_absent_queries_are_measured_where_there_are_any() -> None:
    present, absent = ranked_query([(0, 20)], [(0, 20, 4)]), ranked_query([], [(0, 20, -4)], qid="1")
    assert set(evaluate_ranked([present], PLAIN).metrics) == {"moments"}
    found = evaluate_ranked([present, absent], replace(PLAIN, threshold=0.5)).metrics
    assert set(found) == {"moments", "absent"}
    assert found["moments"]["r1@0.5"].value == 1.0
    assert {name: metric.value for name, metric in found["absent"].items()} == {
        "false_alarm_rate": 0.0, "miss_rate": 0.0, "presence_auroc": 1.0, "rejection_f1": 1.0, "false_alarms_at_10_misses": 0.0,
    }  # fmt: skip
    assert found["absent"]["false_alarm_rate"].floors["whole_video"] == 1.0


def test_of_equally_scored_clips_any_may_be_shown() -> None:
    ratings = np.zeros((20, 3), np.float32)
    ratings[:5] = 4
    one = ranked_query([(0, 10)], [(0, 10, 1)], saliency=ratings)  # a score of 0 everywhere
    found = evaluate_ranked([one], PLAIN, num_bootstrap=0).metrics["highlights"]
    assert found["fair_hit1"].value == found["very_good_map"].value == 0.25
    assert found["fair_hit1"].floors["whole_video"] == 0.25


def test_many_raters_are_measured_as_in_tvsum() -> None:
    """No windows at all: what is labelled is how much people like each clip."""
    rng = np.random.default_rng(0)
    ratings = rng.integers(1, 6, (20, 20)).astype(np.float32)
    one = ranked_query([], [(0, 10, 1)], saliency=ratings, scores=ratings.mean(axis=1), is_labelled=False)
    report = evaluate_ranked([one], PLAIN, num_bootstrap=0)
    assert set(report.metrics) == {"highlights"}
    assert set(report.metrics["highlights"]) == {"top5_map"}
    assert report.metric("highlights.top5_map").value > report.metric("highlights.top5_map").floors["uniform"]
    assert report.counts["skipped_moments_not_labelled"] == 1
    assert math.isnan(validation_value([one]))
    assert validation_value([one], "top5-mAP") == report.metric("highlights.top5_map").value


def test_tracks_of_other_clips_are_averaged_by_seconds() -> None:
    annotation = ranked_query([], [(0, 1, 0)], saliency=np.zeros((3, 3), np.float32)).annotation  # clips of 2 s
    assert clip_scores(track_of([1, 3, 5, 7, np.nan], clip_s=1), annotation).tolist() == [2, 6, -np.inf]
    assert clip_scores(track_of([1, 4], clip_s=3), annotation).tolist() == [1, 2.5, 4]
    assert clip_scores(track_of([1, np.nan, 2, 9]), annotation).tolist() == [1, -np.inf, 2]


def test_a_training_is_validated_by_the_same_numbers() -> None:
    ranked = made_rankings()
    report = evaluate_ranked(ranked, PLAIN, num_bootstrap=0)
    for metric, name in VALIDATION_METRICS.items():
        if name != "top5_map":
            group = "highlights" if name in report.metrics["highlights"] else "moments"
            assert validation_value(ranked, metric) == report.metric(f"{group}.{name}").value
    with pytest.raises(ConfigError, match="choose one of mAP"):
        validation_value(ranked, "loss")


def test_nothing_to_measure_is_one_clear_error() -> None:
    with pytest.raises(AnnotationError, match="nothing to evaluate"):
        evaluate_ranked([], PLAIN)
    with pytest.raises(AnnotationError, match="is not labelled"):
        evaluate_ranked([ranked_query([], [(0, 1, 0)], is_labelled=False)], PLAIN)
