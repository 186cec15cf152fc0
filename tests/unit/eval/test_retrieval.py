"""Ranks both ways: ties by chance, several captions, videos that are true as well, intervals, floors."""

import numpy as np
import pytest

from qle.data.pairs import PairTable
from qle.eval.retrieval import (
    CUTS,
    Ranks,
    both_ways,
    dual_softmax,
    metrics_of,
    published_leak_ranks,
    retrieval_metrics,
    retrieval_report,
    text_to_video,
    video_to_text,
)


def by_hand(scores: np.ndarray, right: int, rng: np.random.Generator) -> np.ndarray:
    """Places of the right one over many random orders of the ties."""
    order = [np.lexsort([rng.random(len(scores)), -scores]) for _ in range(4000)]
    return np.array([int(np.flatnonzero(one == right)[0]) for one in order])


def table_of(video: np.ndarray, num_videos: int, concept: np.ndarray | None = None) -> PairTable:
    texts = np.arange(len(video))
    return PairTable(
        videos=tuple(f"v{number:03d}" for number in range(num_videos)),
        queries=tuple(f"text {number}" for number in texts),
        video=np.asarray(video),
        query=texts,
        concept=texts if concept is None else np.asarray(concept),
    )


def test_ties_count_as_every_order_of_them_would(rng: np.random.Generator) -> None:
    scores = np.array([[3.0, 1, 2, 2, 2, 0, 2]])
    ranks = text_to_video(scores, np.array([3]))
    places = by_hand(scores[0], 3, rng)
    assert (ranks.better[0], ranks.level[0], ranks.candidates[0]) == (1, 3, 7)
    assert ranks.expected()[0] == pytest.approx(places.mean(), abs=0.05)
    for cut in CUTS:
        assert ranks.hit(cut)[0] == pytest.approx((places < cut).mean(), abs=0.03)
    assert ranks.hit(3)[0] == pytest.approx(0.5)
    assert ranks.reciprocal()[0] == pytest.approx((1 / (places + 1)).mean(), abs=0.01)
    assert ranks.broken(is_lucky=True).expected()[0] == 1
    assert ranks.broken(is_lucky=False).expected()[0] == 4


def test_a_head_that_says_the_same_of_all_is_at_chance_and_not_at_the_top() -> None:
    """A count of strictly better ones alone would give it 100 %."""
    found = retrieval_metrics(np.zeros((20, 20), np.float32), np.arange(20))
    for direction in found.values():
        assert direction["r@1"] == pytest.approx(1 / 20)
        assert direction["r@10"] == pytest.approx(0.5)
        assert direction["medr"] == direction["meanr"] == pytest.approx(10.5)


def test_ranks_are_those_of_sorting(rng: np.random.Generator) -> None:
    similarity, video = rng.normal(size=(40, 15)), rng.integers(0, 15, 40)
    ranks = text_to_video(similarity, video)
    assert ranks.better.tolist() == [
        int(np.flatnonzero(np.argsort(-row) == right)[0]) for row, right in zip(similarity, video, strict=True)
    ]
    back = video_to_text(similarity, video)
    described = np.unique(video)
    groups = np.stack([similarity[video == number].max(0) for number in described])
    assert back.video.tolist() == described.tolist()
    assert back.better.tolist() == [
        int((groups[:, number] > groups[place, number]).sum()) for place, number in enumerate(described)
    ]


def test_what_is_true_as_well_is_neither_right_nor_wrong() -> None:
    """Text 0 is of video 0 and of video 1 too. Without that knowledge video 1 would count as an error of it."""
    similarity = np.array([[0.5, 0.9, 0.1], [0.0, 0.6, 0.7], [0.2, 0.1, 0.8]])
    also = np.zeros((3, 3), bool)
    also[0, 1] = True
    video = np.arange(3)
    assert text_to_video(similarity, video).better.tolist() == [1, 1, 0]
    ranks = text_to_video(similarity, video, also)
    assert ranks.better.tolist() == [0, 1, 0]
    assert ranks.candidates.tolist() == [2, 3, 3]
    assert video_to_text(similarity, video).better.tolist() == [0, 1, 0]
    back = video_to_text(similarity, video, also)
    assert back.better.tolist() == [0, 0, 0]
    assert back.candidates.tolist() == [3, 2, 3]


def test_a_group_that_is_true_of_a_video_in_part_keeps_its_other_texts() -> None:
    similarity = np.array([[0.5, 0.9], [0.4, 0.95], [0.1, 0.92]])
    video, also = np.array([0, 0, 1]), np.zeros((3, 2), bool)
    assert video_to_text(similarity, video, also).better.tolist() == [0, 1]
    also[1, 1] = True
    assert video_to_text(similarity, video, also).better.tolist() == [0, 0]
    also[0, 1] = True
    assert video_to_text(similarity, video, also).candidates.tolist() == [2, 1]


def test_chance_is_what_random_scores_reach(rng: np.random.Generator) -> None:
    video = rng.integers(0, 30, 3000)
    report = retrieval_report(rng.normal(size=(3000, 30)), table_of(video, 30), num_bootstrap=0)
    for name, metric in report.metrics["text_to_video"].items():
        assert metric.value == pytest.approx(metric.floors["chance"], rel=0.1), name
    assert report.floor_names == ("chance",)
    assert report.metric("text_to_video.r@1").floors["chance"] == pytest.approx(1 / 30)


def test_intervals_hold_the_number_and_shrink_with_videos(rng: np.random.Generator) -> None:
    widths = []
    for num_videos in (20, 200):
        similarity = rng.normal(size=(num_videos, num_videos)) + 2.5 * np.eye(num_videos)
        report = retrieval_report(similarity, table_of(np.arange(num_videos), num_videos), num_bootstrap=300)
        metric = report.metric("text_to_video.r@1")
        low, high = metric.interval
        assert low <= metric.value <= high
        widths.append(high - low)
        assert report.metric("text_to_video.medr").interval is None
    assert widths[1] < widths[0] / 2


def test_a_report_counts_what_was_left_out_and_what_was_tied(rng: np.random.Generator) -> None:
    similarity = rng.normal(size=(6, 5))
    similarity[0] = 1.0
    pairs = table_of(np.array([0, 0, 1, 2, 3, 4]), 5, concept=np.array([0, 1, 2, 3, 0, 4]))
    report = retrieval_report(similarity, pairs, with_dsl=True, num_bootstrap=10)
    assert report.counts["left_out_also_true"] == 2  # concept 0 is true of videos 0 and 3
    assert report.counts["tied_texts"] == 1
    ties = report.metrics["ties"]
    assert ties["text_to_video_r@1_lowest"].value < report.metric("text_to_video.r@1").value
    assert ties["text_to_video_r@1_highest"].value > report.metric("text_to_video.r@1").value
    assert {"text_to_video_dsl", "video_to_text_dsl"} <= set(report.metrics)
    assert set(report.protocol) == {"text_to_video", "video_to_text", "ties", "dsl", "floors", "interval"}
    assert len(report.rows(report.floor_names)[0]) == 4
    report.to_json()


def test_a_leaking_table_has_its_own_groups_and_says_what_it_is(rng: np.random.Generator) -> None:
    similarity, pairs = rng.normal(size=(4, 4)), table_of(np.arange(4), 4)
    report = retrieval_report(similarity, pairs, leaking=similarity + 5 * np.eye(4), num_bootstrap=10)
    assert report.metric("text_to_video_published_leak.r@1").value == 1.0
    assert "No measure of retrieval" in report.protocol["published_leak"]
    gaps = np.array([[1.0, np.nan], [2.0, 3.0]])
    ranks = published_leak_ranks(gaps, np.array([0, 1]))
    assert ranks["text_to_video"].better.tolist() == [1, 0]
    assert ranks["video_to_text"].better.tolist() == [1, 0]


def test_the_dual_softmax_needs_no_wide_exponent() -> None:
    similarity = np.array([[30.0, -30.0], [29.0, 10.0]], np.float32)
    found = dual_softmax(similarity)
    np.testing.assert_allclose(found[:, 0], [30.0, 0.0], atol=1e-6)
    assert np.isfinite(found).all()


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 4 similarities are NaN"):
        both_ways(np.array([[1.0, np.nan], [0.0, 1.0]]), np.array([0, 1]))


def test_numbers_of_a_perfect_head() -> None:
    ranks = text_to_video(np.eye(5), np.arange(5))
    assert isinstance(ranks, Ranks)
    assert metrics_of(ranks) == {
        **{f"r@{cut}": 1.0 for cut in CUTS}, "meanr": 1.0, "mrr": 1.0, "medr": 1.0,
    }  # fmt: skip
