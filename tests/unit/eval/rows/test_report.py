"""Reports from end to end: perfect, inverted and useless scores, floors, intervals, what is skipped, strict JSON."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from qle.data.annotations import Annotation
from qle.errors import AnnotationError
from qle.eval.floors import priors_of
from qle.eval.report import FLOORS
from qle.eval.rows.report import evaluate
from qle.eval.rows.scored import ScoredQuery
from qle.segments.tracks import Localization, moments_of, presence_of
from tests.made_scores import made_scores, scored_query

ROWS = 40


def oracle(sign: float = 1.0) -> list[ScoredQuery]:
    """Rows that are wholly inside a window or outside, so that a perfect head exists."""
    made = []
    for video in range(4):
        for query, windows in enumerate((((4.0, 9.0),), ((20.0, 28.0), (33.0, 36.0)), ())):
            rows = np.arange(ROWS) + 0.5
            inside = np.any([(rows > a) & (rows < b) for a, b in windows], axis=0) if windows else np.zeros(ROWS, bool)
            logit = sign * np.where(inside, 8.0, -8.0)
            made.append(scored_query(windows, logit, video=f"v{video}", query=f"query {query}", qid=f"{video}-{query}"))
    return made


def test_a_perfect_head_is_perfect() -> None:
    report = evaluate(oracle(), Localization())
    ones = ("frame.auroc", "frame.ap", "frame.f1", "frame.macro_auroc", "segment.r1@0.7", "segment.miou", "segment.f1@0.7",
            "segment.map", "segment.map_per_query", "absent.presence_auroc", "absent.rejection_f1")  # fmt: skip
    for name in ones:
        assert report.metric(name).value == pytest.approx(1), name
        assert report.metric(name).interval == pytest.approx((1, 1)), name
    for name in ("segment.start_error_s", "absent.false_alarm_rate", "absent.miss_rate", "calibration.aurc"):
        assert report.metric(name).value == 0, name
    assert report.metric("calibration.ece").value < 1e-3
    assert report.counts["guessed_pairs"] == 0


def test_an_inverted_head_is_as_bad_as_can_be() -> None:
    report = evaluate(oracle(-1.0), Localization())
    assert report.metric("frame.auroc").value == 0
    assert report.metric("frame.f1").value == 0
    assert report.metric("absent.false_alarm_rate").value == 1
    assert report.metric("calibration.brier").value > 0.99


def test_a_constant_head_has_the_numbers_of_the_constant_floor() -> None:
    scored = [replace(one, track=replace(one.track, logit=np.full(ROWS, 3.0, np.float32))) for one in oracle()]
    report = evaluate(scored, Localization(), num_bootstrap=0)
    for group in ("frame", "segment"):
        for name, metric in report.metrics[group].items():
            assert metric.value == pytest.approx(metric.floors["constant"], nan_ok=True), name
    assert report.metric("frame.auroc").value == 0.5
    assert report.metric("frame.ap").value == pytest.approx(report.counts["relevant_rows"] / report.counts["rows"])


def test_a_head_that_is_deaf_to_the_query_is_its_own_floor() -> None:
    scored = oracle()
    deaf = [
        replace(one, track=replace(one.track, logit=scored[3 * (k // 3)].track.logit)) for k, one in enumerate(scored)
    ]
    report = evaluate(deaf, Localization(), num_bootstrap=0)
    for name in ("frame.auroc", "frame.f1", "segment.r1@0.5", "segment.f1@0.5"):
        assert report.metric(name).value == pytest.approx(report.metric(name).floors["query_blind"]), name
    assert report.metric("frame.auroc").value < 0.8


def test_a_position_prior_that_tells_all_is_a_floor_of_one() -> None:
    """Events that always happen at the same time need no head."""
    scored = [one for one in oracle() if one.annotation.windows == ((4.0, 9.0),)]
    report = evaluate(scored, Localization(), priors=priors_of([one.annotation for one in scored]), num_bootstrap=0)
    for name in ("frame.auroc", "frame.f1", "segment.r1@0.5"):
        assert report.metric(name).floors["position"] == pytest.approx(1), name


def test_without_training_annotations_there_are_no_priors_among_the_floors() -> None:
    assert set(evaluate(oracle(), Localization(), num_bootstrap=0).metric("frame.auroc").floors) == {
        "constant",
        "query_blind",
    }
    priors = priors_of([one.annotation for one in oracle()])
    report = evaluate(oracle(), Localization(), priors=priors, num_bootstrap=0)
    for entries in report.metrics.values():
        assert all(set(metric.floors) == set(FLOORS) for metric in entries.values())


def test_with_one_query_a_video_there_is_no_query_blind_floor() -> None:
    """It would be the head itself, and look as if the head knew nothing of the query."""
    scored = [one for one in oracle() if one.annotation.query == "query 0"]
    assert set(evaluate(scored, Localization(), num_bootstrap=0).metric("frame.auroc").floors) == {"constant"}


def test_moments_and_presence_are_those_that_localize_gives() -> None:
    scored = made_scores(seed=7)
    localization = Localization(threshold=0.8, low_threshold=0.4, smoothing_s=3.0, min_duration_s=2.0, merge_gap_s=2.0)
    report = evaluate(scored, localization, num_bootstrap=0)
    moments = [moments_of(one.track, localization) for one in scored]
    absent = [not one.annotation.windows for one in scored]
    alarms = [bool(found) for found, is_absent in zip(moments, absent, strict=True) if is_absent]
    assert report.metric("absent.false_alarm_rate").value == pytest.approx(np.mean(alarms))
    rejected = np.array([presence_of(one.track, localization) < 0.5 for one in scored])
    expected = 2 * (rejected & np.array(absent)).sum() / (rejected.sum() + sum(absent))
    assert report.metric("absent.rejection_f1").value == pytest.approx(expected)


def test_macro_leaves_out_what_has_no_answer_and_says_how_many() -> None:
    scored = [
        *oracle(),
        scored_query(((0.0, ROWS),), np.zeros(ROWS), video="always", qid="x"),
        scored_query(((3.0, 3.2),), np.zeros(ROWS), video="short", qid="y"),
        scored_query(((3.0, 9.0),), np.zeros(ROWS), video="dark", qid="z", valid=np.zeros(ROWS, bool)),
    ]
    report = evaluate(scored, Localization(threshold=0.9), num_bootstrap=10)
    assert report.metric("frame.macro_auroc").value == 1
    counts = report.counts
    assert counts["skipped_macro_absent"] == 4
    assert counts["skipped_macro_always_relevant"] == 1
    assert counts["skipped_macro_windows_below_half_a_row"] == 2, "the short one, and the one without a usable row"
    assert counts["skipped_rows_not_usable"] == ROWS
    assert counts["guessed_pairs"] == 3


def test_rows_that_are_not_usable_change_no_frame_number() -> None:
    scored = made_scores(seed=9)
    report = evaluate(scored, Localization(), num_bootstrap=0)
    longer = []
    for one in scored:
        track = one.track
        rows = len(track.logit)
        extra = replace(
            track,
            times_s=np.append(track.times_s, track.times_s[-1] + 1),
            edges_s=np.append(track.edges_s, track.edges_s[-1] + 1),
            valid=np.append(track.valid, False),
            logit=np.append(track.logit, np.float32(99)),
        )
        assert len(extra.logit) == rows + 1
        longer.append(replace(one, track=extra))
    again = evaluate(longer, Localization(), num_bootstrap=0)
    for group in ("frame", "calibration"):
        for name in report.metrics[group]:
            assert again.metrics[group][name].value == report.metrics[group][name].value, name


@pytest.mark.slow
def test_intervals_hold_the_number_and_shrink_with_more_videos() -> None:
    few, many = (evaluate(made_scores(num_videos=n, separation=0.7), Localization()) for n in (6, 60))
    widths = []
    for report in (few, many):
        for entries in report.metrics.values():
            for name, metric in entries.items():
                if metric.interval is not None:
                    assert metric.interval[0] - 0.02 <= metric.value <= metric.interval[1] + 0.02, name
        low, high = report.metric("frame.auroc").interval or (0, 0)
        widths.append(high - low)
    assert widths[1] < widths[0] / 1.5


@pytest.mark.slow
def test_the_same_seed_gives_the_same_report() -> None:
    first, again, other = (evaluate(made_scores(), Localization(), seed=seed).to_json() for seed in (0, 0, 1))
    assert first == again
    assert first["metrics"]["frame"]["auroc"]["interval"] != other["metrics"]["frame"]["auroc"]["interval"]


def test_one_video_has_no_interval() -> None:
    report = evaluate(made_scores(num_videos=1), Localization())
    assert all(metric.interval is None for entries in report.metrics.values() for metric in entries.values())
    assert report.settings["num_bootstrap"] == 0


def test_every_query_has_its_row() -> None:
    report = evaluate(oracle(), Localization(), num_bootstrap=0)
    assert [row.query for row in report.per_query] == ["query 0", "query 1", "query 2"]
    first, _, absent = report.per_query
    assert (first.num_videos, first.num_present, first.auroc, first.r1_at_05) == (4, 4, 1, 1)
    assert math.isnan(first.false_alarm_rate)
    assert (absent.num_present, absent.false_alarm_rate) == (0, 0)
    assert math.isnan(absent.auroc)


@pytest.mark.parametrize(
    "scored",
    [
        [scored_query((), np.zeros(3))],
        [scored_query(((0.0, 3.0),), np.zeros(3))],
        [scored_query(((1.0, 2.0),), np.full(3, np.nan))],
        [scored_query(((1.0, 2.0),), np.array([1e4, -1e4, 1e4]))],
        [scored_query(((0.0, 1.0),), np.array([0.0]))],
    ],
    ids=["absent", "always", "nan", "huge", "one-row"],
)
def test_reports_of_little_are_strict_json(scored: list[ScoredQuery]) -> None:
    priors = priors_of([one.annotation for one in scored])
    for many in (scored, [*scored, replace(scored[0], video="other")]):
        report = evaluate(many, Localization(), priors=priors, num_bootstrap=20)
        text = json.dumps(report.to_json(), allow_nan=False)
        assert set(json.loads(text)) == {"metrics", "per_query", "counts", "protocol", "settings"}
        assert all(len(row) == 3 + len(FLOORS) for row in report.rows())


def test_what_nobody_labelled_cannot_be_measured() -> None:
    hidden = Annotation(qid="q7", video="v", query="a polyp", windows=(), is_labelled=False)
    with pytest.raises(AnnotationError, match=r"q7.*not labelled"):
        evaluate([replace(oracle()[0], annotation=hidden)], Localization())
    with pytest.raises(AnnotationError, match="nothing to evaluate"):
        evaluate([], Localization())
