"""Files of predictions through the protocols: the same numbers as a head, documented ways with what is missing, clear errors."""

import json
from typing import Any

import numpy as np
import pytest

from qle.errors import AnnotationError
from qle.eval.moments.report import Beside, evaluate_ranked, report_of
from qle.eval.submissions.answers import submitted_answers
from qle.eval.submissions.charades import charades_report
from qle.eval.submissions.official_report import official_report
from qle.eval.submissions.qvhighlights import evaluate_submission
from qle.segments.ranked import Ranking, presence_of, rank
from tests.made_rankings import made_rankings, ranked_query

QUICK = Beside(num_bootstrap=0)
NAMES = ("truth", "said")


def rows_of(ranked: list, ranking: Ranking) -> list[dict[str, Any]]:
    return [
        {
            "qid": int(one.annotation.qid),
            "pred_relevant_windows": [[m.start_s, m.end_s, m.score] for m in rank(one.candidates, ranking)],
            "pred_saliency_scores": one.candidates.track.logit.tolist(),
            "pred_exist_score": presence_of(one.candidates, ranking),
        }
        for one in ranked
    ]


def test_a_file_is_measured_as_the_head_that_wrote_it() -> None:
    ranked, ranking = made_rankings(), Ranking(presence_bias=-2.0, threshold=0.5)
    expected = evaluate_ranked(ranked, ranking, num_bootstrap=20)
    found = submitted_answers([one.annotation for one in ranked], rows_of(ranked, ranking), name="said")
    report = report_of(found.table, found.answers, Beside(num_bootstrap=20), settings={})
    for group in ("moments", "highlights"):
        assert report.to_json()["metrics"][group] == expected.to_json()["metrics"][group]
    assert report.metric("absent.presence_auroc").value == expected.metric("absent.presence_auroc").value


def test_lists_are_ordered_by_score_except_where_the_file_is_the_ranking() -> None:
    one = ranked_query([(0, 10)], [(0, 1, 0)]).annotation
    rows = [{"qid": 0, "pred_relevant_windows": [[20, 30, 0.1], [0, 10, 0.9]]}]
    found = submitted_answers([one], rows, name="said")
    assert report_of(found.table, found.answers, QUICK, settings={}).metric("moments.r1@0.7").value == 1.0
    assert charades_report([one], rows, QUICK, name="said").metric("charades.r1@0.1").value == 0.0


def test_what_is_missing_is_a_miss_where_that_is_allowed() -> None:
    asked = [ranked_query([(0, 10)], [(0, 1, 0)], qid=qid, video=qid).annotation for qid in ("1", "2")]
    rows = [{"qid": 1, "pred_relevant_windows": [[0, 10, 1]]}, {"qid": 3, "pred_relevant_windows": []}]
    with pytest.raises(
        AnnotationError, match=r"1 annotated queries have no prediction, e\.g\. '2'; 1 rows are about others"
    ):
        charades_report(asked, rows, QUICK, name="said")
    report = charades_report(asked, rows, QUICK, name="said", allow_missing=True)
    assert report.metric("charades.r1@0.7").value == 0.5
    assert (report.counts["unanswered"], report.counts["unasked"]) == (1, 1)
    with pytest.raises(AnnotationError, match="2 annotated queries have no prediction"):
        charades_report(asked, rows[1:], QUICK, name="said", allow_missing=True)


def test_a_reversed_span_overlaps_nothing_in_charades_and_is_an_error_elsewhere() -> None:
    one = ranked_query([(0, 10)], [(0, 1, 0)]).annotation
    rows = [{"qid": 0, "pred_relevant_windows": [[10, 0, 1]]}]
    report = charades_report([one], rows, QUICK, name="said")
    assert report.metric("charades.miou").value == 0.0
    assert report.counts["reversed_spans"] == 1
    with pytest.raises(AnnotationError, match=r"said, row 1 \(qid 0\), pred_relevant_windows: \[10, 0\] does not end"):
        submitted_answers([one], rows, name="said")


def test_an_empty_list_says_that_it_does_not_happen() -> None:
    asked = [ranked_query([(0, 10)], [(0, 1, 0)]).annotation, ranked_query([], [(0, 1, 0)], qid="1").annotation]
    rows = [{"qid": 0, "pred_relevant_windows": [[0, 10, 1]]}, {"qid": 1, "pred_relevant_windows": []}]
    found = submitted_answers(asked, rows, name="said")
    report = report_of(found.table, found.answers, QUICK, settings={})
    assert report.metric("moments.r1@0.7").value == 1.0
    assert "absent" not in report.metrics  # nobody says how likely the query is there


WRONG: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no rows": ([], "there are no rows"),
    "twice": ([{"qid": 0, "pred_relevant_windows": []}] * 2, "row 2 .qid 0., qid: stands in row 1 too"),
    "text and number": (
        [{"qid": 0, "pred_relevant_windows": []}, {"qid": "0", "pred_relevant_windows": []}],
        "row 2 .qid '0'., qid: stands in row 1 too",
    ),
    "no windows": ([{"qid": 0}], "pred_relevant_windows: missing"),
    "NaN": ([{"qid": 0, "pred_relevant_windows": [[0, float("nan"), 1]]}], "expected finite numbers, got nan"),
    "text": ([{"qid": 0, "pred_relevant_windows": [[0, 1, "high"]]}], "expected finite numbers, got 'high'"),
    "presence": ([{"qid": 0, "pred_relevant_windows": [], "pred_exist_score": "yes"}], "pred_exist_score: expected finite"),
    "saliency": ([{"qid": 0, "pred_relevant_windows": [], "pred_saliency_scores": 3}], "pred_saliency_scores: expected a list"),
    "clips": (
        [{"qid": 0, "pred_relevant_windows": [], "pred_saliency_scores": [1], "qle": {"clip_s": 0}}],
        "qle.clip_s: expected seconds above 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_row_is_one_clear_error(name: str) -> None:
    rows, message = WRONG[name]
    one = ranked_query([(0, 10)], [(0, 1, 0)], saliency=np.zeros((20, 3), np.float32)).annotation
    with pytest.raises(AnnotationError, match=message) as caught:
        submitted_answers([one], rows, name="said")
    assert len(str(caught.value).splitlines()) <= 3


def test_the_official_numbers_with_floors_and_without_their_faults() -> None:
    truth = {
        "qid": 1, "vid": "a", "duration": 150, "relevant_windows": [[0, 8], [20, 44], [60, 148]],
        "relevant_clip_ids": [0, 74], "saliency_scores": [[4, 4, 4], [3, 3, 3]],
    }  # fmt: skip
    said = {
        "qid": 1,
        "pred_relevant_windows": [[60, 140, 0.9], [5, 5, 0.1]],
        "pred_saliency_scores": [-1.0] + [-2.0] * 73,
    }
    official, report = official_report([truth], [said], names=NAMES)
    assert json.dumps(official) == json.dumps(evaluate_submission([truth], [said], published=True))
    assert {name: metric.value for name, metric in report.metrics["official"].items()} == official["brief"]
    assert set(report.metrics["without_faults"]) == {
        f"HL-min-{level}-{kind}" for level in ("Fair", "Good", "VeryGood") for kind in ("mAP",)
    }
    assert report.floor_names == ("best_span", "whole_video", "uniform")
    assert report.metric("official.MR-full-R1@0.5").floors["whole_video"] == 100.0  # 88 of 150 s
    assert report.counts["queries_with_clips_without_score"] == report.counts["windows_without_length"] == 1


def test_official_numbers_of_moments_alone_need_no_length() -> None:
    truth = {"qid": 1, "relevant_windows": [[0, 8], [20, 44], [60, 148]]}
    said = {"qid": 1, "pred_relevant_windows": [[60, 148, 0.9]]}
    official, report = official_report([truth], [said], names=NAMES)
    assert official["brief"]["MR-full-R1@0.7"] == 100.0
    assert report.floor_names == ()
    with_length = official_report([truth | {"duration": 1e300}], [said], names=NAMES)[1]
    assert with_length.metric("official.MR-full-mAP").floors["whole_video"] == 0.0


@pytest.mark.parametrize("shape", [(0, 1), (5, 0), (5, 3)], ids=["no clips", "no raters", "no ratings"])
def test_ratings_that_nobody_gave_are_not_measured(shape: tuple[int, int]) -> None:
    """An annotation file may list clips, or their number, without a rating of any."""
    one = ranked_query([(0, 10)], [(0, 1, 0)], saliency=np.full(shape, np.nan, np.float32)).annotation
    found = submitted_answers([one], [{"qid": 0, "pred_relevant_windows": [[0, 10, 1]]}], name="said")
    report = report_of(found.table, found.answers, QUICK, settings={})
    assert report.metric("moments.r1@0.7").value == 1.0
    assert "highlights" not in report.metrics
    assert report.counts["rated_pairs"] == 0
