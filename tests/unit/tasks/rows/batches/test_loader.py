"""Training batches: the same from wherever the tokens lie, whatever the processes, and again after a resume."""

import dataclasses
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import qle
from qle.cache.reader import Space
from qle.cache.spaces import create_space
from qle.data.annotations import Annotation
from qle.data.loading.share import Share
from qle.data.lookup import match_videos
from qle.errors import AnnotationError, CacheCorruptError, CacheMissingError, ConfigError, QleError
from qle.heads.rows import RowBatch
from qle.tasks.rows.batches.loader import DataConfig, TrainingBatches, training_batches
from tests import tiny_cache as tiny

pytestmark = pytest.mark.slow

LENGTHS = {"a/long.mp4": 37, "b/middle.mp4": 20, "b/short.mp4": 5}
CONFIG = DataConfig(window_rows=8, windows_per_batch=4, queries_per_window=4)
PLACEMENTS = ("device", "ram", "mapped", "streamed")
CLOSE = 1e-3


def annotation(video: str, query: str, *windows: tuple[float, float], **more: object) -> Annotation:
    return Annotation(qid=f"{video}/{query}", video=video, query=query, windows=windows, **more)  # type: ignore[arg-type]


ANNOTATIONS = [
    annotation("long", "a polyp on the left", (2.0, 6.0), (20.0, 26.0), concept="polyp"),
    annotation("long", "a growth at the left side", (2.0, 6.0), (20.0, 26.0), concept="polyp"),
    annotation("long", "water", (4.0, 30.0)),
    annotation("long", "the grasper enters from the Top", (33.0, 37.0)),
    annotation("long", "blood"),
    annotation("middle", "a growth at the left side", (0.0, 3.0), concept="polyp"),
    annotation("middle", "blood", (15.0, 20.0)),
    annotation("middle", "smoke"),
    annotation("short", "smoke", (1.0, 2.0)),
    annotation("short", "blood"),
    annotation("short", "nobody knows", is_labelled=False),
]


def values_of(key: str, num_rows: int) -> dict[str, np.ndarray]:
    """Row k of a video holds small whole numbers that tell video and row, exact in every type."""
    row = np.arange(num_rows, dtype=np.float32)[:, None, None, None]
    grid = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)
    patch = np.broadcast_to(row + 64 * grid + len(key) / 4, (num_rows, 2, 2, 8)).copy()
    return {"patch": patch, "frame": patch.mean((1, 2)).astype(np.float16)}


def make_space(root: Path, dtype: str = "float16") -> Space:
    folder = create_space(root, tiny.tiny_spec(dtype))
    for key, num_rows in LENGTHS.items():
        valid = np.arange(num_rows) % 10 != 9
        tiny.commit_rows(folder, key, np.arange(num_rows) + 0.5, valid=valid, values=values_of(key, num_rows))
    return qle.open_cache(root).space()


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return make_space(tmp_path_factory.mktemp("cached") / "cache")


def batches_of(space: Space, config: DataConfig = CONFIG, **named: object) -> TrainingBatches:
    given = {"streams": ("patch", "frame"), **named}
    share = Share(**{"seed": 1} | {name: given.pop(name) for name in ("seed", "device", "shard") if name in given})  # type: ignore[arg-type]
    annotations, _ = match_videos(space, given.pop("annotations", ANNOTATIONS))  # type: ignore[arg-type]
    return training_batches(space, annotations, config, share, **given)  # type: ignore[arg-type]


def all_of(space: Space, config: DataConfig = CONFIG, epoch: int = 0, **named: object) -> list[RowBatch]:
    with batches_of(space, config, **named) as batches:
        batches.set_epoch(epoch)
        return [frozen(batch) for batch in batches]


def frozen(batch: RowBatch) -> RowBatch:
    return dataclasses.replace(batch, streams={name: stream.clone() for name, stream in batch.streams.items()})


def placed(placement: str, config: DataConfig = CONFIG, **more: object) -> DataConfig:
    return dataclasses.replace(config, placement=placement, num_workers=2, **more)  # type: ignore[arg-type]


def assert_same(one: Sequence[RowBatch], other: Sequence[RowBatch]) -> None:
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert (left.queries, left.videos, left.first_rows) == (right.queries, right.videos, right.first_rows)
        for field in ("row_mask", "times_s", "query_index", "query_mask", "relevance", "relevance_mask"):
            assert torch.equal(getattr(left, field), getattr(right, field)), field
        for name in left.streams:
            assert left.streams[name].dtype == right.streams[name].dtype
            assert torch.equal(left.streams[name], right.streams[name]), name


def asked(batch: RowBatch) -> Iterator[tuple[int, str, torch.Tensor, torch.Tensor]]:
    for window, place in batch.query_mask.nonzero().tolist():
        text = batch.queries[int(batch.query_index[window, place])]
        yield window, text, batch.relevance[window, place], batch.relevance_mask[window, place]  # type: ignore[index]


def test_shapes_and_types_are_those_of_the_interface(space: Space) -> None:
    for batch in all_of(space):
        assert batch.streams["patch"].shape == (4, 8, 2, 2, 8)
        assert batch.streams["frame"].shape == (4, 8, 8)
        assert batch.streams["patch"].dtype == torch.float16
        assert (batch.row_mask.shape, batch.row_mask.dtype) == ((4, 8), torch.bool)
        assert (batch.times_s.shape, batch.times_s.dtype) == ((4, 8), torch.float64)
        assert batch.query_index.shape == batch.query_mask.shape == (4, 4)
        assert batch.relevance is not None
        assert batch.relevance.shape == (4, 4, 8)
        assert len(set(batch.queries)) == len(batch.queries)
        assert int(batch.query_index.max()) < len(batch.queries)


def test_tokens_times_and_masks_belong_together(space: Space) -> None:
    """Every token says which row of which video it is."""
    for batch in all_of(space):
        for window, (key, first) in enumerate(zip(batch.videos, batch.first_rows, strict=True)):
            for row in range(8):
                number = first + row
                is_usable = number < LENGTHS[key] and number % 10 != 9
                assert bool(batch.row_mask[window, row]) == is_usable
                tokens = batch.streams["patch"][window, row]
                if is_usable:
                    assert float(tokens[0, 0, 0]) == number + len(key) / 4
                    assert float(batch.times_s[window, row]) == number
                else:
                    assert not tokens.any()
        assert torch.all(batch.times_s.diff(dim=1) >= 0)


@pytest.mark.parametrize("has_jitter", [True, False])
def test_every_row_of_every_video_is_in_every_epoch(space: Space, has_jitter: bool) -> None:
    config = dataclasses.replace(CONFIG, time_jitter=has_jitter)
    with batches_of(space, config) as batches:
        for epoch in range(6):
            batches.set_epoch(epoch)
            seen = {key: np.zeros(num_rows, bool) for key, num_rows in LENGTHS.items()}
            for batch in batches:
                for key, first in zip(batch.videos, batch.first_rows, strict=True):
                    seen[key][first : first + 8] = True
                    assert 0 <= first <= max(0, LENGTHS[key] - 8)
            assert all(rows.all() for rows in seen.values())


def test_labels_follow_the_windows_of_the_concept(space: Space) -> None:
    """Rows of one second each, from k to k + 1, since times count from the first row."""
    happens = {
        "polyp": {"a/long.mp4": [(2, 6), (20, 26)], "b/middle.mp4": [(0, 3)]},
        "water": {"a/long.mp4": [(4, 30)]},
    }
    happens |= {"blood": {"b/middle.mp4": [(15, 20)]}, "smoke": {"b/short.mp4": [(1, 2)]}}
    concept = {a.query: a.concept_key for a in ANNOTATIONS}
    num_positive = 0
    for batch in all_of(space):
        for window, text, relevance, known in asked(batch):
            key, first = batch.videos[window], batch.first_rows[window]
            assert torch.equal(known, batch.row_mask[window])
            if concept[text] not in happens:
                continue
            for row in range(8):
                middle_s = first + row if first + row else 0.25  # the first row reaches from 0 to half a second
                is_inside = any(start <= middle_s < end for start, end in happens[concept[text]].get(key, []))
                near_edge = any(
                    abs(middle_s - edge) < 1 for spans in happens[concept[text]].get(key, []) for edge in spans
                )
                if known[row] and not near_edge:
                    assert bool(relevance[row]) == is_inside
            num_positive += int(relevance.sum())
    assert num_positive > 20


def test_a_synonym_of_what_happens_is_never_a_negative(space: Space) -> None:
    concepts = {a.query: a.concept_key for a in ANNOTATIONS}
    for epoch in range(5):
        for batch in all_of(space, dataclasses.replace(CONFIG, negatives=("window", "absent", "corpus")), epoch=epoch):
            for window in range(4):
                texts = [text for other, text, _, _ in asked(batch) if other == window]
                assert len({concepts[text] for text in texts}) == len(texts)
                assert "nobody knows" not in texts


def test_what_nobody_labelled_in_a_video_is_no_negative_of_it(space: Space) -> None:
    """Of another video it is one, where the user says that the corpus is labelled exhaustively."""
    asked_of = [
        annotation("long", "water", (4.0, 30.0)), annotation("long", "smoke", is_labelled=False),
        annotation("middle", "smoke", (3.0, 5.0)), annotation("short", "water", (0.0, 1.0)),
    ]  # fmt: skip
    config = dataclasses.replace(CONFIG, negatives=("corpus",), windows_per_batch=1)
    found = {
        (batch.videos[0], text) for batch in all_of(space, config, annotations=asked_of) for _, text, *_ in asked(batch)
    }
    assert ("a/long.mp4", "smoke") not in found
    assert {("b/short.mp4", "smoke"), ("b/middle.mp4", "water")} <= found


def test_windows_full_of_events_are_still_asked_for_something_absent(space: Space) -> None:
    config = dataclasses.replace(CONFIG, queries_per_window=2, window_rows=37, windows_per_batch=1)
    both = [annotation("long", name, (0.0, 37.0)) for name in ("one", "two", "three")]
    for epoch in range(5):
        (batch,) = all_of(space, config, epoch, annotations=[*both, annotation("long", "nothing")])
        sums = sorted(float(relevance.sum() > 0) for _, _, relevance, _ in asked(batch))
        assert sums == [0.0, 1.0]


def test_paraphrases_take_turns(space: Space) -> None:
    texts = {text for epoch in range(8) for batch in all_of(space, epoch=epoch) for text in batch.queries}
    assert {"a polyp on the left", "a growth at the left side"} <= texts


def test_epochs_differ_and_come_again(space: Space) -> None:
    first, again, second = all_of(space), all_of(space), all_of(space, epoch=1)
    assert_same(first, again)
    assert [batch.first_rows for batch in first] != [batch.first_rows for batch in second]
    assert [batch.first_rows for batch in first] != [batch.first_rows for batch in all_of(space, seed=2)]


def test_a_resume_goes_on_in_the_middle_of_an_epoch(space: Space) -> None:
    whole = all_of(space, epoch=3)
    with batches_of(space) as batches:
        assert len(batches) == len(whole)
        batches.set_epoch(3, first_batch=1)
        assert_same([frozen(batch) for batch in batches], whole[1:])
        batches.set_epoch(3)
        next(iter(batches))  # broken off
        batches.set_epoch(3)
        assert_same([frozen(batch) for batch in batches], whole)
        with pytest.raises(ConfigError, match="at most"):
            batches.set_epoch(0, first_batch=99)


AUGMENTED = dataclasses.replace(CONFIG, flip=0.5, token_dropout=0.3, positive_share=0.25)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8"])
def test_all_placements_give_the_same_batches(tmp_path: Path, dtype: str) -> None:
    space = make_space(tmp_path / "cache", dtype)
    placements = PLACEMENTS if dtype == "int8" else PLACEMENTS[:3]
    expected = all_of(space, placed("mapped", AUGMENTED), epoch=1)
    kind = {"int8": torch.float16}.get(dtype) or getattr(torch, dtype)
    assert all(batch.streams["patch"].dtype == kind for batch in expected)
    for placement in placements:
        assert_same(all_of(space, placed(placement, AUGMENTED), epoch=1), expected)


def test_rates_give_the_same_batches_everywhere(space: Space) -> None:
    config = dataclasses.replace(CONFIG, rate_fps=0.5)
    expected = all_of(space, placed("mapped", config))
    assert_same(all_of(space, placed("ram", config)), expected)
    for batch in expected:
        for window, (key, first) in enumerate(zip(batch.videos, batch.first_rows, strict=True)):
            number = 2 * (first + int(batch.row_mask[window].int().argmax()))
            assert float(batch.streams["patch"][window][batch.row_mask[window]][0, 0, 0, 0]) == number + len(key) / 4


def test_processes_together_see_what_one_sees(space: Space) -> None:
    whole = all_of(space, AUGMENTED, epoch=2)
    parts = [all_of(space, AUGMENTED, epoch=2, shard=(index, 2)) for index in range(2)]
    for batch, *shards in zip(whole, *parts, strict=True):
        assert batch.videos == shards[0].videos + shards[1].videos
        for field in ("row_mask", "times_s", "relevance", "relevance_mask", "query_mask"):
            assert torch.equal(getattr(batch, field), torch.cat([getattr(shard, field) for shard in shards])), field
        assert torch.equal(batch.streams["patch"], torch.cat([shard.streams["patch"] for shard in shards]))
        texts = [text for shard in shards for _, text, _, _ in asked(shard)]
        assert [text for _, text, _, _ in asked(batch)] == texts


def test_more_windows_around_events(space: Space) -> None:
    config = dataclasses.replace(CONFIG, positive_share=0.5)
    assert len(all_of(space, config)) in (2 * len(all_of(space)), 2 * len(all_of(space)) - 1)


def test_a_mirrored_map_swaps_sides_and_words(space: Space) -> None:
    config = dataclasses.replace(CONFIG, flip=1.0)
    for plain, flipped in zip(all_of(space), all_of(space, config), strict=True):
        assert torch.equal(flipped.streams["patch"], plain.streams["patch"].flip((2, 3)))
        assert torch.equal(flipped.streams["frame"], plain.streams["frame"])
        assert not any("left" in query or "Top" in query for query in flipped.queries)


def test_consumers_may_keep_batches(space: Space) -> None:
    """Memory goes round, but only once nobody looks into it any more, not even a view."""
    for placement in PLACEMENTS:
        with batches_of(space, placed(placement)) as batches:
            kept = [batch.streams["patch"][:, 2:].flatten() for batch in batches]
            again = [batch.streams["patch"][:, 2:].flatten().clone() for batch in batches]
        assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))


def commit_with(root: Path, bad_rows: list[int], dtype: str = "float16") -> Space:
    """Extraction refuses such numbers; files of other tools may bring them in."""
    folder = create_space(root, tiny.tiny_spec(dtype))
    values = values_of("nan.mp4", 20)
    values["frame"][bad_rows] = np.nan
    tiny.commit_rows(folder, "nan.mp4", np.arange(20.0), values=values)
    return qle.open_cache(root).space()


@pytest.mark.parametrize("placement", ["ram", "mapped"])
def test_rows_of_nan_are_masked_and_counted(tmp_path: Path, placement: str, caplog: pytest.LogCaptureFixture) -> None:
    space = commit_with(tmp_path / "cache", [3, 4, 17])
    with batches_of(space, placed(placement), annotations=[annotation("nan", "x", (2.0, 5.0))]) as batches:
        for batch in batches:
            assert all(torch.isfinite(stream).all() for stream in batch.streams.values())
            for window, first in enumerate(batch.first_rows):
                bad = [row - first for row in (3, 4, 17) if 0 <= row - first < 8]
                assert not batch.row_mask[window, bad].any()
                assert int(batch.row_mask[window].sum()) == 8 - len(bad)
            assert batch.relevance_mask is not None
            assert not (batch.relevance_mask & ~batch.row_mask[:, None]).any()
        assert batches.num_nonfinite_rows == 3
    assert "holds NaN or inf" in caplog.text


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_video_of_nan_alone_is_named(tmp_path: Path, placement: str) -> None:
    space = commit_with(tmp_path / "cache", list(range(20)))
    with pytest.raises(CacheCorruptError, match=r"video 'nan\.mp4' .*no row of finite tokens") as error:
        all_of(space, placed(placement), annotations=[annotation("nan", "x", (2.0, 5.0))])
    assert len(str(error.value).splitlines()) <= 3


def test_a_killed_process_is_an_error_and_no_hang(space: Space) -> None:
    with batches_of(space, placed("streamed", window_rows=2)) as batches:
        running = iter(batches)
        next(running)
        for child in batches._source.children:  # type: ignore[attr-defined]
            os.kill(child.process.pid, signal.SIGKILL)
        with pytest.raises(QleError, match=r"ended unexpectedly \(pid \d+, exit code -9\)") as error:
            list(running)
        assert len(str(error.value).splitlines()) <= 3


def test_the_wait_is_measured_and_batches_are_made_ahead(space: Space) -> None:
    with batches_of(space) as batches:
        assert batches.wait_s == 0.0
        started = time.perf_counter()
        assert len(list(batches)) == len(batches)
        assert 0 < batches.wait_s <= time.perf_counter() - started
        assert batches.placement.name == "ram"
        assert "GB" in batches.placement.reason


def test_saliency_becomes_fractions(space: Space) -> None:
    scores = np.array([[4, 2], [0, 0], [np.nan, np.nan], [4, 4]], dtype=np.float32)
    rated = [annotation("short", "smoke", (0.0, 5.0), saliency=scores, clip_s=1.0)]
    config = dataclasses.replace(CONFIG, labels="saliency", windows_per_batch=1)
    (batch,) = all_of(space, config, annotations=rated)
    (_, _, relevance, known) = next(asked(batch))
    assert relevance.tolist() == [0.75, 0, 0, 1, 0, 0, 0, 0]
    assert known.tolist() == [True, True, False, True, False, False, False, False]


def test_bad_requests_are_one_clear_error_each(space: Space) -> None:
    cases: list[tuple[type[QleError], str, dict[str, object]]] = [
        (AnnotationError, "no annotations", {"annotations": []}),
        (AnnotationError, "no annotations", {"annotations": [a for a in ANNOTATIONS if not a.is_labelled]}),
        (AnnotationError, "'elsewhere'", {"annotations": [*ANNOTATIONS, annotation("elsewhere", "x")]}),
        (CacheMissingError, "no stream 'clip'", {"streams": ("clip",)}),
        (ConfigError, "cannot be divided among 3", {"shard": (0, 3)}),
        (ConfigError, "0 <= index < count", {"shard": (2, 2)}),
        (ConfigError, "seed -1", {"seed": -1}),
        (ConfigError, "rows a second", {"config": dataclasses.replace(CONFIG, rate_fps=2.0)}),
    ]
    for error, match, named in cases:
        with pytest.raises(error, match=match):
            batches_of(space, **named)  # type: ignore[arg-type]


def test_a_video_without_valid_rows_is_left_out(tmp_path: Path) -> None:
    folder = create_space(tmp_path / "cache", tiny.tiny_spec())
    tiny.commit_rows(folder, "dark.mp4", np.arange(9.0), valid=np.zeros(9, bool))
    tiny.commit_rows(folder, "light.mp4", np.arange(9.0))
    space = qle.open_cache(tmp_path / "cache").space()
    rows = [annotation(video, "x", (2.0, 5.0)) for video in ("dark", "light")]
    with batches_of(space, annotations=rows) as batches:
        assert batches.skipped == ("dark.mp4",)
        assert {key for batch in batches for key in batch.videos} == {"light.mp4"}
    with pytest.raises(AnnotationError, match="valid row"):
        batches_of(space, annotations=rows[:1])
