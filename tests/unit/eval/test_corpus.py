"""Moments of a corpus: recall over all videos by hand, ties by all their orders, chance as the floor."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qle.errors import AnnotationError
from qle.eval.corpus import CorpusAnswers, CorpusList, CorpusTruth, chance_of_hit, corpus_metrics
from qle.eval.moments.report import Beside
from qle.eval.retrieval import text_to_video

QUICK = Beside(num_bootstrap=0)


def answered(*moments: tuple[str, float, float, float]) -> CorpusList:
    videos, start, end, score = zip(*moments, strict=True) if moments else ((), (), (), ())
    return CorpusList(videos=videos, start_s=np.array(start), end_s=np.array(end), score=np.array(score))


def true(qid: str, length_s: float = 100.0, **windows: tuple) -> CorpusTruth:
    return CorpusTruth(qid=qid, windows=windows, durations_s=dict.fromkeys(windows, length_s))


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6), st.integers(1, 7))
def test_ties_count_by_all_their_orders(items: list[tuple[int, bool]], depth: int) -> None:
    items = sorted(items, key=lambda item: -item[0])
    orders = [
        order for order in itertools.permutations(items) if all(a[0] >= b[0] for a, b in itertools.pairwise(order))
    ]
    expected = np.mean([any(right for _, right in order[:depth]) for order in orders])
    score, right = np.array([item[0] for item in items], float), np.array([item[1] for item in items])
    assert chance_of_hit(score, right, depth) == pytest.approx(expected)


def test_stages_and_chain_by_hand() -> None:
    """Query 1 is found at once. Query 2 is found at second place, and its video at first, with another moment of it."""
    truth = [true("1", a=((0, 10),)), true("2", b=((50, 60), (80, 100)))]
    chain = [
        answered(("a", 0, 10, 0.9), ("b", 0, 10, 0.5)),
        answered(("b", 0, 10, 0.8), ("b", 82, 100, 0.7), ("a", 80, 100, 0.6)),
    ]
    oracle = [answered(("a", 0, 14, 0.9)), answered(("b", 0, 10, 0.8), ("b", 82, 100, 0.7))]
    similarity = np.array([[3.0, 2, 1], [3, 2, 1]])
    ranks = text_to_video(similarity, np.array([0, 1]))
    found = corpus_metrics(
        truth, CorpusAnswers(videos=ranks, oracle=oracle, chain=chain), num_videos=3, beside=QUICK
    ).metrics  # fmt: skip
    assert found["videos"]["r@1"].value == 0.5
    assert found["videos"]["r@5"].value == 1.0
    assert found["oracle"]["r1@0.5"].value == 0.5
    assert found["oracle"]["r1@0.7"].value == 0.5  # 10 of 14 s
    assert found["oracle"]["r5@0.7"].value == 1.0
    assert found["oracle"]["miou"].value == pytest.approx(10 / 14 / 2)
    assert found["chain"]["r1@0.5"].value == 0.5
    assert found["chain"]["r5@0.7"].value == 1.0
    assert found["chain"]["video_r@1"].value == 1.0


def test_the_floor_is_a_random_video_and_the_usual_stretch() -> None:
    """All windows are the first tenth: in the right video the constant is right, the right video is one of fifty."""
    truth = [true(str(k), **{f"v{k}": ((0, 10),)}) for k in range(20)]
    lists = [answered((f"v{k}", 0, 10, 1.0)) for k in range(20)]
    report = corpus_metrics(
        truth, CorpusAnswers(oracle=lists, chain=lists), num_videos=50, beside=Beside(num_bootstrap=20)
    )
    assert report.floor_names == ("chance",)
    assert report.metric("oracle.r1@0.7").floors["chance"] == 1.0
    for depth in (1, 5, 10):
        assert report.metric(f"chain.r{depth}@0.7").floors["chance"] == pytest.approx(depth / 50)
    assert report.metric("chain.r100@0.7").floors["chance"] == 1.0
    assert report.metric("chain.r1@0.7").interval == (1.0, 1.0)
    far = corpus_metrics(
        truth, CorpusAnswers(chain=lists), num_videos=50, beside=Beside(span=(0.5, 0.6), num_bootstrap=0)
    )
    assert far.metric("chain.r100@0.5").floors["chance"] == 0.0
    assert far.metric("chain.video_r@1").floors["chance"] == pytest.approx(1 / 50)


def test_one_score_for_everything_is_chance() -> None:
    truth = [true("1", a=((0, 10),))]
    level = [answered(*((video, 0, 10, 0.5) for video in "abcdefghij"))]
    report = corpus_metrics(truth, CorpusAnswers(chain=level), num_videos=10, beside=QUICK)
    for depth in (1, 5, 10):
        metric = report.metric(f"chain.r{depth}@0.5")
        assert metric.value == pytest.approx(metric.floors["chance"]) == pytest.approx(depth / 10)


def test_several_right_videos_and_summaries_without_windows() -> None:
    truth = [true("1", a=((0, 10),), b=((5, 10),)), true("2", c=())]
    chain = [answered(("b", 5, 10, 1.0)), answered(("a", 0, 1, 0.9), ("c", 0, 1, 0.5))]
    oracle = [answered(("a", 0, 10, 1.0)), answered(("c", 0, 1, 1.0))]
    report = corpus_metrics(
        truth, CorpusAnswers(oracle=oracle, chain=chain), num_videos=4, beside=QUICK
    )  # fmt: skip
    assert report.metric("chain.r1@0.7").value == 1.0  # of the first query alone
    assert report.metric("chain.video_r@1").value == 0.5
    assert report.metric("chain.video_r@5").value == 1.0
    assert report.metric("oracle.r1@0.5").value == 1.0
    assert report.metric("chain.video_r@1").floors["chance"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert report.counts["queries_without_windows"] == 1


def test_no_answer_is_a_miss_and_other_numbers_stand_beside() -> None:
    truth = [true("1", a=((0, 10),))]
    more = {"shortlist": {"recall20": np.array([0.25])}}
    report = corpus_metrics(
        truth, CorpusAnswers(oracle=[answered()], chain=[answered()], more=more), num_videos=4, beside=QUICK
    )  # fmt: skip
    assert report.metric("chain.r100@0.5").value == report.metric("oracle.r1@0.5").value == 0.0
    assert report.metric("shortlist.recall20").value == 0.25
    assert not math.isnan(report.metric("oracle.miou").value)


def test_nothing_to_measure_is_one_clear_error() -> None:
    for truth in ([], [true("1")]):
        with pytest.raises(AnnotationError, match="nothing to evaluate"):
            corpus_metrics(truth, CorpusAnswers(), num_videos=3, beside=QUICK)
