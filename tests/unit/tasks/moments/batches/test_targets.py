"""Targets are where the annotations say, for every window; what is drawn changes from epoch to epoch."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qle.data.annotations import Annotation, read_annotations
from qle.segments.spans import mask_of
from qle.tasks.moments.batches import draws
from qle.tasks.moments.batches.config import MomentDataConfig
from qle.tasks.moments.batches.items import Corpus, open_corpus
from qle.tasks.moments.batches.targets import ItemLabels, ItemWindows, TargetArrays

CLIP_S = 2.0
NAN = float("nan")


def annotation(qid: str, *windows: tuple[float, float], video: str = "v", **more: object) -> Annotation:
    return Annotation(qid=qid, video=video, query=f"query {qid}", windows=windows, **more)  # type: ignore[arg-type]


def corpus_of(annotations: Sequence[Annotation], num_clips: int = 20) -> Corpus:
    by_key: dict[str, list[Annotation]] = {}
    for one in annotations:
        by_key.setdefault(one.video, []).append(one)
    return open_corpus(by_key, dict.fromkeys(by_key, np.arange(num_clips + 1) * CLIP_S), "_x$")


def labels_of(
    annotations: Sequence[Annotation], num_clips: int = 20, **config: object
) -> tuple[ItemLabels, MomentDataConfig, int]:
    settings = MomentDataConfig(**({"window_clips": 20} | config))  # type: ignore[arg-type]
    return ItemLabels(corpus_of(annotations, num_clips), settings, seed=3), settings, len(annotations)


def drawn(
    made: tuple[ItemLabels, MomentDataConfig, int], epoch: int = 0, mask: np.ndarray | None = None
) -> tuple[ItemWindows, TargetArrays]:
    """Of all items at once."""
    labels, config, num_items = made
    chances = draws.item_draws(3, epoch, num_items, config.num_pairs)
    windows = labels.windows(np.arange(num_items), chances)
    if mask is None:
        mask = np.arange(int(windows.count.max())) < windows.count[:, None]
    return windows, labels.targets(windows, mask, chances, epoch)


def test_spans_and_clips_of_a_whole_video() -> None:
    _, targets = drawn(labels_of([annotation("a", (0, 4), (10, 40)), annotation("b"), annotation("c", (5, 6))]))
    assert targets.counts == (2, 0, 1)
    np.testing.assert_allclose(targets.spans, [[0.05, 0.1], [0.625, 0.75], [0.1375, 0.025]], rtol=1e-6)
    assert targets.relevant[0].tolist() == [k in (0, 1) or k >= 5 for k in range(20)]
    assert not targets.relevant[1].any()
    np.testing.assert_array_equal(targets.saliency, targets.relevant)


def test_no_moment_is_without_a_clip() -> None:
    """One of a fifth of a clip covers less than half of any."""
    _, targets = drawn(labels_of([annotation("a", (5.0, 5.4))]))
    assert targets.relevant[0].nonzero()[0].tolist() == [2]


def test_what_lies_behind_the_last_clip_is_cut() -> None:
    _, targets = drawn(labels_of([annotation("a", (36, 41)), annotation("b", (40, 42))]))
    np.testing.assert_allclose(targets.spans, [[0.95, 0.1]], rtol=1e-6)
    assert targets.counts == (1, 0)


def test_a_moment_that_lies_behind_the_end_but_for_a_trace_is_none() -> None:
    """It had a relevant clip and no span: to be scored high, and not to be found."""
    _, targets = drawn(
        labels_of([annotation("a", (39.2, 42)), annotation("b", (38.9, 42)), annotation("c", (39.9, 40))])
    )
    assert targets.counts == (0, 1, 1)
    assert targets.relevant.any(axis=1).tolist() == [False, True, True]


def test_a_long_moment_fills_half_of_the_windows_that_are_drawn_for_it() -> None:
    made = labels_of([annotation("a", (100, 140))], 100, window_clips=5, empty_share=0.0)
    found = {int(drawn(made, epoch)[1].relevant.sum()) for epoch in range(200)}
    assert found == {3, 4, 5}


@given(
    st.lists(st.tuples(st.floats(0, 380), st.floats(0.5, 90)), max_size=6),
    st.integers(1, 200),
    st.integers(1, 60),
    st.integers(0, 5),
)
def test_targets_are_where_the_annotation_says(
    moments: list[tuple[float, float]], num_clips: int, window: int, epoch: int
) -> None:
    """Whatever the video, the window and the moments: spans lead back to the seconds of the annotation, cut to the window."""
    length_s = num_clips * CLIP_S
    windows = tuple((start, min(start + long, length_s)) for start, long in moments if start < length_s - 0.5)
    made = labels_of([annotation("a", *windows)], num_clips, window_clips=window, max_moments=9)
    where, targets = drawn(made, epoch)
    first, count = int(where.first[0]), int(where.count[0])
    assert 0 <= first <= first + count <= num_clips
    assert count == min(num_clips, window)
    begin_s, extent_s = first * CLIP_S, count * CLIP_S
    centre, width = targets.spans.T.astype(np.float64)
    assert np.all(width > 0)
    found = {(round(begin_s + (c - w / 2) * extent_s, 2), round(begin_s + (c + w / 2) * extent_s, 2))
             for c, w in zip(centre, width, strict=True)}  # fmt: skip
    inside = {(round(max(s, begin_s), 2), round(min(e, begin_s + extent_s), 2)) for s, e in windows}
    near = {(round(s + a, 2), round(e + b, 2)) for s, e in inside for a in (-0.01, 0, 0.01) for b in (-0.01, 0, 0.01)}
    assert found <= near
    whole = {(round(s, 2), round(e, 2)) for s, e in windows if s >= begin_s and e <= begin_s + extent_s}
    assert len(whole) <= len(found)
    expected = mask_of(windows, np.arange(num_clips + 1) * CLIP_S)[first : first + count]
    assert np.all(targets.relevant[0] >= expected)
    assert targets.relevant[0].sum() - expected.sum() <= len(windows)


def test_windows_hold_a_moment_except_for_a_share_of_them() -> None:
    """Of a long video; over many epochs every place is drawn."""
    rows = [annotation("a", (100, 110), (300, 500)), annotation("b")]
    made = labels_of(rows, 300, empty_share=0.25)
    firsts, num_empty = [], 0
    for epoch in range(400):
        where, targets = drawn(made, epoch)
        firsts.append(where.first.tolist())
        num_empty += targets.counts[0] == 0
    assert 10 < num_empty < 100
    assert {first for first, _ in firsts} >= set(range(35, 51))
    assert np.ptp([second for _, second in firsts]) > 250
    assert all(drawn(labels_of(rows, 300, empty_share=0.0), epoch)[1].counts[0] for epoch in range(50))


def test_of_many_moments_other_ones_are_drawn_in_other_epochs() -> None:
    rows = [annotation("a", *[(4.0 * k, 4.0 * k + 2) for k in range(10)])]
    chosen = []
    for epoch in range(8):
        _, targets = drawn(labels_of(rows, max_moments=3), epoch)
        assert targets.counts == (3,)
        assert np.all(np.diff(targets.spans[:, 0]) > 0)
        chosen.append(tuple(targets.spans[:, 0].tolist()))
    assert len(set(chosen)) > 4
    assert drawn(labels_of(rows, max_moments=3), 5)[1].spans[:, 0].tolist() == list(chosen[5])


def ratings(num_clips: int, scores: dict[int, Sequence[float]]) -> np.ndarray:
    found = np.full((num_clips, max(map(len, scores.values()))), NAN, dtype=np.float32)
    for clip, values in scores.items():
        found[clip] = values
    return found


RATED = annotation("a", (4, 12), saliency=ratings(20, {2: (4, 4, 4), 3: (1, 2, 3), 4: (0, 0, 1), 5: (0, 1, 0)}))


def test_ratings_are_added_up() -> None:
    _, targets = drawn(labels_of([RATED]))
    assert targets.saliency[0].tolist() == [0, 0, 12, 6, 1, 1, *[0] * 14]
    _, targets = drawn(labels_of([RATED], saliency="windows"))
    np.testing.assert_array_equal(targets.saliency, targets.relevant)


def test_the_first_pair_is_that_of_the_extremes_the_second_one_inside_and_outside() -> None:
    worst, outside = set(), set()
    for epoch in range(40):
        _, targets = drawn(labels_of([RATED]), epoch)
        assert targets.pair_mask.tolist() == [[True, True]]
        assert targets.better[0, 0] == 2
        worst.add(int(targets.worse[0, 0]))
        assert targets.relevant[0, targets.better[0, 1]]
        assert not targets.relevant[0, targets.worse[0, 1]]
        outside.add(int(targets.worse[0, 1]))
    assert worst == {4, 5}
    assert len(outside) > 10


def test_pairs_that_do_not_exist_are_masked() -> None:
    equal = annotation("b", (0, 40), saliency=ratings(20, dict.fromkeys(range(20), (2, 2, 2))))
    _, targets = drawn(labels_of([equal, annotation("c", (0, 40)), annotation("d"), annotation("e", (0, 4))]))
    assert targets.pair_mask.tolist() == [[False] * 2, [False] * 2, [False] * 2, [True] * 2]


def test_twenty_raters_from_one_to_five_make_zero_to_twelve_and_pairs_without_windows() -> None:
    scores = {k: [1 + k % 5] * 20 for k in range(20)}
    rated = annotation("a", saliency=ratings(20, scores), is_labelled=False)
    for epoch in range(10):
        _, targets = drawn(labels_of([rated]), epoch)
        np.testing.assert_allclose(targets.saliency[0], [3.0 * (k % 5) for k in range(20)])
        assert targets.counts == (0,)
        assert targets.pair_mask[0, 0]
        assert (targets.better[0, 0] % 5, targets.worse[0, 0] % 5) == (4, 0)
        better, worse = targets.better[0, 1], targets.worse[0, 1]
        assert targets.pair_mask[0, 1] == (better % 5 != worse % 5)
        assert better % 5 >= worse % 5


def test_ratings_of_other_clips_are_averaged() -> None:
    """Rated by 2 s, seen by 4 s."""
    scores = {0: (4,), 1: (2,), 2: (NAN,), 3: (3,)}
    rated = annotation("a", (0, 16), saliency=ratings(8, scores))
    corpus = open_corpus({"v": [rated]}, {"v": np.arange(5) * 4.0}, "$")
    labels = ItemLabels(corpus, MomentDataConfig(), seed=0)
    chances = draws.item_draws(0, 0, 1, 2)
    windows = labels.windows(np.array([0]), chances)
    targets = labels.targets(windows, np.ones((1, 4), dtype=bool), chances, 0)
    assert targets.saliency[0].tolist() == [9, 9, 1, 1]


def test_clips_that_cannot_be_used_are_in_no_target() -> None:
    mask = np.ones((2, 20), dtype=bool)
    mask[0, 2:4] = False
    mask[1] = False
    _, targets = drawn(labels_of([RATED, annotation("b", (0, 4))]), mask=mask)
    assert targets.counts == (1, 0)
    assert not targets.relevant[~mask].any()
    assert not targets.saliency[~mask].any()
    assert targets.pair_mask[0].tolist() == [False, True]
    assert mask[0, targets.better[0, 1]]
    assert not targets.pair_mask[1].any()


@pytest.mark.parametrize("num_items", [4, 9])
def test_an_item_gets_the_same_numbers_whatever_its_company(num_items: int) -> None:
    np.testing.assert_array_equal(draws.item_draws(1, 2, num_items, 2)[:4], draws.item_draws(1, 2, 4, 2))
    assert np.all(draws.item_draws(1, 3, 4, 2) != draws.item_draws(1, 2, 4, 2))


def test_picks_are_even() -> None:
    allowed = np.tile([False, True, False, True, True], (3000, 1))
    place, is_there = draws.pick(allowed, np.random.default_rng(0).random(3000))
    assert is_there.all()
    counts = np.bincount(place, minlength=5)
    assert counts[[0, 2]].tolist() == [0, 0]
    assert counts[[1, 3, 4]].min() > 900
    assert draws.pick(np.zeros((1, 3), dtype=bool), np.array([0.5]))[1].tolist() == [False]
    assert draws.pick(np.ones((1, 3), dtype=bool), np.array([np.nextafter(1, 0)]))[0].tolist() == [2]


def test_clips_and_ratings_of_qvhighlights_are_those_of_its_file(shared_annotations: Path) -> None:
    path = shared_annotations / "qvhighlights_val.jsonl"
    rows = {str(row["qid"]): row for row in map(json.loads, path.read_text().splitlines())}
    annotations = read_annotations(path)
    by_key = {one.qid: [replace(one, video=one.qid)] for one in annotations}
    edges = {one.qid: np.arange(0, (one.duration_s or 0) + 1, 2.0) for one in annotations}
    corpus = open_corpus(by_key, edges, "$")
    labels, items = ItemLabels(corpus, MomentDataConfig(max_moments=99), seed=0), np.arange(len(annotations))
    chances = draws.item_draws(0, 0, len(items), 2)
    windows = labels.windows(items, chances)
    targets = labels.targets(windows, np.arange(75) < windows.count[:, None], chances, 0)
    assert len(items) > 20
    done = 0
    for item, annotation in enumerate(annotations):
        row = rows[annotation.qid]
        assert targets.relevant[item].nonzero()[0].tolist() == sorted(row["relevant_clip_ids"])
        scores = dict(zip(row["relevant_clip_ids"], map(sum, row["saliency_scores"]), strict=True))
        assert targets.saliency[item].tolist() == [scores.get(clip, 0) for clip in range(75)]
        centre, width = targets.spans[done : done + targets.counts[item]].T.astype(np.float64) * row["duration"]
        found = np.stack([centre - width / 2, centre + width / 2], axis=1)
        np.testing.assert_allclose(found, sorted(row["relevant_windows"]), atol=1e-4)
        done += targets.counts[item]
