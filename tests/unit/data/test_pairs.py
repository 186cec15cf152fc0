"""Which texts are pairs with which videos, and the order in which an epoch takes them."""

import tracemalloc
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qle.data.annotations import Annotation
from qle.data.pairs import PairTable, pair_table
from qle.errors import AnnotationError
from qle.tasks.retrieval.batches.order import epoch_order, num_batches

NUMBERS = count()


def said(query: str, *, windows: tuple = ((0.0, 1.0),), labelled: bool = True, concept: str = "") -> Annotation:
    return Annotation(
        qid=str(next(NUMBERS)), video="v", query=query, windows=windows, is_labelled=labelled, concept=concept
    )


def texts_of(table: PairTable) -> list[tuple[str, str]]:
    return [
        (table.videos[video], table.queries[query])
        for video, query in zip(table.video.tolist(), table.query.tolist(), strict=True)
    ]


def test_everything_is_a_pair_that_is_not_known_to_be_absent() -> None:
    table = pair_table(
        {
            "b.mp4": [said("a polyp"), said("smoke", windows=()), said("a clip", windows=(), labelled=False)],
            "a.mp4": [said("a polyp"), said("a polyp", windows=((5.0, 6.0),)), said("a Polyp.")],
            "c.mp4": [said("smoke", windows=())],
        }
    )
    assert texts_of(table) == [
        ("a.mp4", "a polyp"), ("a.mp4", "a Polyp."), ("b.mp4", "a polyp"), ("b.mp4", "a clip"),
    ]  # fmt: skip
    assert table.videos == ("a.mp4", "b.mp4", "c.mp4")
    assert table.described.tolist() == [0, 1]


def test_a_caption_without_times_of_what_is_labelled_absent_is_none() -> None:
    """One rater says that it does not happen, and nobody says when it does."""
    rows = [said("smoke", windows=()), said("Smoke", windows=(), labelled=False), said("a clip")]
    assert texts_of(pair_table({"a.mp4": rows})) == [("a.mp4", "a clip")]
    twice = [said("smoke", windows=()), said("smoke")]  # two rows of one concept, one of them with windows
    assert texts_of(pair_table({"a.mp4": twice})) == [("a.mp4", "smoke")]


def test_what_means_the_same_is_true_of_the_same_videos() -> None:
    table = pair_table(
        {
            "a.mp4": [said("a polyp", concept="polyp")],
            "b.mp4": [said("a growth", concept="polyp"), said("smoke")],
            "c.mp4": [said("a polyp")],  # the concept is named elsewhere
            "d.mp4": [said("smoke")],
        }
    )
    every = np.arange(len(table))
    names = [query for _, query in texts_of(table)]
    assert names == ["a polyp", "a growth", "smoke", "a polyp", "smoke"]
    assert table.is_true(every, np.arange(4)).astype(int).tolist() == [
        [1, 1, 1, 0], [1, 1, 1, 0], [0, 1, 0, 1], [1, 1, 1, 0], [0, 1, 0, 1],
    ]  # fmt: skip
    assert table.is_true(np.array([2]), np.array([3, 0])).tolist() == [[True, False]]


def test_what_is_true_takes_memory_for_pairs_and_not_for_all_that_could_be() -> None:
    """MSR-VTT has 180,000 captions of 9,000 videos: a table of both was 1.6 GB in each process."""
    table = made_table([10] * 4000)
    tracemalloc.start()
    try:
        found = table.is_true(np.arange(0, 320, 10), np.arange(32))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found == np.eye(32, dtype=bool)).all()
    assert peak_bytes < 16 << 20  # the table: 160 MB


def test_annotations_of_nothing_make_no_pairs() -> None:
    with pytest.raises(AnnotationError, match="none of the 1 annotations says what is in its video"):
        pair_table({"a.mp4": [said("smoke", windows=())]})


def made_table(captions: list[int]) -> PairTable:
    """Videos with so many texts each."""
    video = np.repeat(np.arange(len(captions)), captions)
    every = np.arange(len(video))
    return PairTable(
        videos=tuple(map(str, range(len(captions)))),
        queries=tuple(map(str, every)),
        video=video,
        query=every,
        concept=every,
    )


@pytest.mark.slow
@given(
    captions=st.lists(st.integers(0, 4), min_size=2, max_size=12),
    size=st.integers(2, 14),
    rounds=st.integers(1, 4),
    seed=st.integers(0, 100),
)
def test_no_video_comes_twice_in_a_batch_and_all_come_as_often(
    captions: list[int], size: int, rounds: int, seed: int
) -> None:
    table = made_table([*captions, 1, 1])
    order = epoch_order(table, size, rounds, np.random.default_rng(seed))
    videos = table.video[order]
    assert order.shape == (num_batches(table, size, rounds), min(size, len(table.described)))
    assert all(len(set(batch)) == len(batch) for batch in videos.tolist())
    often = np.bincount(videos.ravel(), minlength=len(table.videos))[table.described]
    assert often.min() >= rounds
    assert often.sum() - rounds * len(table.described) < order.shape[1]  # the last batch is filled up


def test_every_caption_comes_before_one_comes_again() -> None:
    table = made_table([4, 1, 2])
    order = epoch_order(table, 2, 4, np.random.default_rng(0)).ravel()
    taken = np.bincount(order, minlength=7)
    assert taken[:4].tolist() == [1, 1, 1, 1]
    assert taken[4] == 4
    assert taken[5:].tolist() == [2, 2]


def test_epochs_differ_and_repeat_by_their_numbers() -> None:
    table = made_table([3] * 10)
    first, again, other = (epoch_order(table, 5, 1, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    captions = {tuple(sorted(epoch_order(table, 5, 1, np.random.default_rng(k)).ravel())) for k in range(5)}
    assert len(captions) == 5  # which caption stands for a video is drawn as well
