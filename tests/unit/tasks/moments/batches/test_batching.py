"""Batches of an epoch: every item once, as many in every process, few shapes; negatives that are true ones."""

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qle.data.annotations import Annotation
from qle.errors import AnnotationError, ConfigError
from qle.tasks.moments.batches.batching import MAX_BUCKETS, ItemPlan, bucket_lengths
from qle.tasks.moments.batches.config import MomentDataConfig
from qle.tasks.moments.batches.items import Corpus, open_corpus
from qle.tasks.moments.batches.negatives import Negatives

PATTERN = MomentDataConfig().source_pattern


def corpus_of(num_queries: list[int], num_clips: list[int] | None = None) -> Corpus:
    """A video a number, of one recording each, unless told otherwise."""
    clips = num_clips or [10] * len(num_queries)
    keys = [f"v{number:03d}" for number in range(len(num_queries))]
    by_key = {
        key: [
            Annotation(qid=f"{key}-{k}", video=key, query=f"{key} {k}", windows=((k, k + 1.0),)) for k in range(count)
        ]
        for key, count in zip(keys, num_queries, strict=True)
    }
    return open_corpus(by_key, {key: np.arange(n + 1) * 2.0 for key, n in zip(keys, clips, strict=True)}, PATTERN)


def items_of(plan: ItemPlan, epoch: int) -> list[list[int]]:
    return [batch.items.tolist() for batch in plan.batches(epoch)]


@pytest.mark.parametrize(("num_items", "count"), [(37, 1), (37, 2), (33, 4), (5, 8)])
def test_every_item_once_and_processes_share_the_batches(num_items: int, count: int) -> None:
    rng = np.random.default_rng(0)
    corpus = corpus_of([1] * num_items, rng.integers(3, 60, num_items).tolist())
    config = MomentDataConfig(items_per_batch=8)
    alone = ItemPlan(corpus, config, 5)
    shared = [ItemPlan(corpus, config, 5, (index, count)) for index in range(count)]
    for epoch in range(3):
        whole, parts = alone.batches(epoch), [plan.batches(epoch) for plan in shared]
        assert {len(part) for part in parts} == {alone.num_batches} == {-(-num_items // 8)}
        assert sorted(item for batch in whole for item in batch.items) == list(range(num_items))
        for batch, *split in zip(whole, *parts, strict=True):
            joined = np.concatenate([part.items for part in split])
            np.testing.assert_array_equal(joined[: len(batch.items)], batch.items)
            assert len(joined) == max(len(batch.items), count)
            assert all(len(part.items) for part in split)
            assert {part.length for part in split} == {batch.length}
    assert items_of(alone, 1) == items_of(ItemPlan(corpus, config, 5), 1)
    if num_items > 8:
        assert items_of(alone, 0) != items_of(alone, 1)
        assert items_of(alone, 1) != items_of(ItemPlan(corpus, config, 6), 1)


def test_batches_are_padded_to_a_few_lengths() -> None:
    rng = np.random.default_rng(0)
    clips = rng.integers(3, 150, 400).tolist()
    plan = ItemPlan(corpus_of([1] * 400, clips), MomentDataConfig(items_per_batch=8), 0)
    seen = np.minimum(clips, 75)
    batches = plan.batches(0)
    assert {batch.length for batch in batches} <= set(plan.bucket_lengths.tolist())
    assert len(plan.bucket_lengths) == MAX_BUCKETS
    assert plan.bucket_lengths[-1] == 75
    assert all(seen[batch.items].max() <= batch.length for batch in batches)
    padded = sum(batch.length * len(batch.items) for batch in batches)
    assert padded < 1.12 * seen.sum()


@given(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(1, 4))
def test_buckets_cost_the_least_padding(lengths: list[int], most: int) -> None:
    values = np.unique(lengths).tolist()

    def padding(buckets: list[int]) -> int:
        return int(sum(min(b for b in buckets if b >= length) - length for length in lengths))

    best = min(padding([*some, values[-1]]) for some in combinations(values[:-1], min(most, len(values)) - 1))
    assert padding(bucket_lengths(np.array(lengths), most).tolist()) == best


@pytest.mark.parametrize("count", [1, 2])
def test_recordings_stay_together(count: int) -> None:
    """Queries side by side in the order in which they happen, at most so many of one recording, other ones each time."""
    rng = np.random.default_rng(0)
    corpus = corpus_of([*rng.integers(1, 9, 40).tolist(), 30])
    config = MomentDataConfig(items_per_batch=20, by_source=True, queries_per_source=7)
    plans = [ItemPlan(corpus, config, 0, (index, count)) for index in range(count)]
    seen: set[int] = set()
    for epoch in range(30):
        epochs = [plan.batches(epoch) for plan in plans]
        assert {len(batches) for batches in epochs} == {plan.num_batches for plan in plans}
        items = [item for batches in epochs for batch in batches for item in batch.items.tolist()]
        assert len(items) == len(set(items)) == np.minimum(np.bincount(corpus.source), 7).sum()
        for batch in (batch for batches in epochs for batch in batches):
            source = corpus.source[batch.items]
            assert len(batch.items) <= 20 // count
            assert len(source[np.flatnonzero(np.diff(source, prepend=-1))]) == len(set(source.tolist()))
            assert all(a < b for a, b in pairwise(batch.items.tolist()) if corpus.source[a] == corpus.source[b])
        seen |= set(items)
    assert len(seen) == corpus.num_items
    assert items_of(plans[0], 0) != items_of(plans[0], 1)


def test_batches_that_cannot_be() -> None:
    corpus = corpus_of([9])
    with pytest.raises(ConfigError, match="cannot be divided among 3"):
        ItemPlan(corpus, MomentDataConfig(items_per_batch=8), 0, (0, 3))
    with pytest.raises(ConfigError, match="a recording has 9 queries"):
        ItemPlan(corpus, MomentDataConfig(items_per_batch=8, by_source=True), 0)


@pytest.mark.parametrize("count", [2, 4, 5])
def test_one_recording_for_several_processes_is_seen_by_all(count: int) -> None:
    """For more than two there were not enough parts, and the training ended in an IndexError."""
    config = MomentDataConfig(items_per_batch=20, by_source=True)
    plans = [ItemPlan(corpus_of([4]), config, 0, (index, count)) for index in range(count)]
    assert [plan.num_batches for plan in plans] == [1] * count
    assert all(items_of(plan, 0) == items_of(plans[0], 0) for plan in plans)


# Items


def test_videos_of_one_recording() -> None:
    names = ("ab_60.0_210.0", "ab_0_150.mp4", "ab.mp4", "abc_1_2", "x/ab_1.5_2")
    rows = {name: [Annotation(qid=name, video=name, query=name, windows=())] for name in names}
    corpus = open_corpus(rows, dict.fromkeys(names, np.arange(3.0)), PATTERN)
    assert corpus.source.tolist() == [0, 0, 0, 1, 2]
    with pytest.raises(ConfigError, match="no regular expression"):
        open_corpus(rows, dict.fromkeys(names, np.arange(3.0)), "(")


def test_only_what_somebody_told_is_learned_from() -> None:
    row = Annotation(qid="1", video="v", query="a", windows=(), is_labelled=False)
    with pytest.raises(AnnotationError, match="nothing can be learned"):
        open_corpus({"v": [row]}, {"v": np.arange(3.0)}, PATTERN)
    told = replace(row, qid="2", query="b", windows=((0, 1),), is_labelled=True)
    rated = replace(row, qid="3", query="c", saliency=np.ones((2, 1), dtype=np.float32))
    corpus = open_corpus({"v": [row, told, rated]}, {"v": np.arange(3.0)}, PATTERN)
    assert [one.qid for one in corpus.annotations] == ["2", "3"]
    assert corpus.num_concepts == 3


# Negatives


def small_corpus() -> Corpus:
    """Videos a_0_1 and a_2_3 are of one recording. "cat" happens in b as well, under another name; "dog" is absent from b,
    and nobody said whether "cow" is in c."""

    def row(video: str, query: str, *windows: tuple[float, float], **more: object) -> Annotation:
        return Annotation(qid=f"{video} {query}", video=video, query=query, windows=windows, **more)  # type: ignore[arg-type]

    rows = {
        "a_0_1": [row("a_0_1", "cat", (0, 1), concept="cat"), row("a_0_1", "cow", (0, 1))],
        "a_2_3": [row("a_2_3", "dog", (0, 1))],
        "b": [row("b", "a kitten", (0, 1), concept="cat"), row("b", "dog"), row("b", "hen", (0, 1))],
        "c": [row("c", "cow", is_labelled=False), row("c", "pig", (0, 1))],
    }
    return open_corpus(rows, dict.fromkeys(rows, np.arange(3.0)), PATTERN)


def test_negatives_do_not_happen() -> None:
    corpus = small_corpus()
    names = [one.qid for one in corpus.annotations]
    assert names == ["a_0_1 cat", "a_0_1 cow", "a_2_3 dog", "b a kitten", "b dog", "b hen", "c pig"]
    negatives, items = Negatives(corpus), np.arange(7)
    found: dict[str, set[str]] = {name: set() for name in names}
    for seed in range(200):
        place, is_there = negatives.draw(items, np.random.default_rng(seed).random(7))
        assert is_there.all()
        for name, other in zip(names, place.tolist(), strict=True):
            found[name].add(names[other])
    # What happens in the other cut of a recording may well happen in this one: no dog for the cat, and no kitten for the dog.
    assert found["a_0_1 cat"] == {"b hen", "c pig"}
    assert found["a_2_3 dog"] == {"b hen", "c pig"}  # "b dog" asks for the same, elsewhere
    assert found["b a kitten"] == {"a_0_1 cow", "a_2_3 dog", "c pig"}  # the dog is known to be absent from b
    assert found["b hen"] == {"a_0_1 cow", "a_2_3 dog", "c pig"}
    assert found["c pig"] == {"a_0_1 cat", "a_2_3 dog", "b a kitten", "b dog", "b hen"}  # perhaps there is a cow


def test_a_batch_without_a_true_negative_says_so() -> None:
    place, is_there = Negatives(small_corpus()).draw(np.array([0, 2]), np.array([0.3, 0.9]))
    assert (place.tolist(), is_there.tolist()) == ([0, 1], [False, False])
