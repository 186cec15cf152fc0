"""Scores of cached videos: nothing but the query and the video may change them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from qle.cache.reader import Space, Video
from qle.cache.records import SourceFacts
from qle.cache.spaces import create_space
from qle.cache.writer import VideoWriter
from qle.data.annotations import Annotation
from qle.errors import AnnotationError, CacheCorruptError, CheckpointError
from qle.heads import build_head
from qle.heads.base import TokenShapes
from qle.heads.rows import RowHead
from qle.segments.tracks import Localization
from qle.tasks.rows.scoring import RowScorer, predict, score_annotations
from qle.text import TextRequest, build_text_encoder
from qle.text.bank import QueryBank
from qle.types import RowPlan, SourceFingerprint, SpaceSpec, Stream
from tests.conftest import CHECKOUT
from tests.small_heads import QLE_VARIANTS, SHAPES, TINY

QUERIES = ("a green polyp", "the grasper enters from the left", "smoke", "water jet then the polyp")
SPEC = SpaceSpec(
    name="small",
    hashed={"made": "for tests"},
    streams=(
        Stream(name="patch", row_shape=SHAPES.streams["patch"], axes=("rows", "cols", "dim"), dtype="float32"),
        Stream(name="frame", row_shape=SHAPES.streams["frame"], axes=("dim",), dtype="float16"),
    ),
    recorded={},
)
CPU = torch.device("cpu")


@pytest.fixture
def space(tmp_path: Path) -> Callable[..., Space]:
    """A space with one video a keyword: its patches, and which of its rows are valid."""

    def make(**videos: tuple[np.ndarray, np.ndarray]) -> Space:
        folder = create_space(tmp_path / "cache", SPEC)
        for name, (patch, valid) in videos.items():
            _commit(folder, f"{name}.mp4", patch, valid)
        return Space(folder)

    return make


def _commit(folder: object, key: str, patch: np.ndarray, valid: np.ndarray) -> None:
    rows = np.arange(len(patch))
    plan = RowPlan(frame_index=25 * rows, pts_s=3.0 + rows, is_valid=valid)
    fingerprint = SourceFingerprint(size=1, mtime_ns=1, edge_hash="0" * 32)
    source = SourceFacts(path=f"/films/{key}", fingerprint=fingerprint, duration_s=float(len(patch)), fps=25.0)
    with VideoWriter.open(folder, key, plan, source, durability="none") as writer:  # type: ignore[arg-type]
        writer.write("patch", rows, np.nan_to_num(patch, posinf=0, neginf=0))
        if patch.dtype == np.float32:
            writer.write("frame", rows, np.zeros((len(patch), 8), np.float16))
        record = writer.commit()
    if not np.isfinite(patch).all():  # no writer of ours stores them, so they are put where rows lie
        stream = record.stream("patch")
        assert stream.raw is not None
        size = patch[0].size * 4
        for number, row in enumerate(patch):
            if not np.isfinite(row).all():
                path = Space(folder).video(key).folder / stream.raw.path.format(number // stream.raw.rows_per_file)  # type: ignore[arg-type]
                with path.open("r+b") as file:
                    file.seek(stream.raw.offset + (number % stream.raw.rows_per_file) * size)
                    file.write(row.astype(np.float32).tobytes())


def _video(rng: np.random.Generator, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    patch = rng.standard_normal((num_rows, *SHAPES.streams["patch"])).astype(np.float32)
    return patch, np.arange(num_rows) % 10 != 9


def _scorer(head: RowHead, **changes: object) -> RowScorer:
    text = build_text_encoder(TextRequest(name="tiny", dim=8), "cpu")
    settings: dict = {"device": CPU, "rate_fps": None} | changes
    return RowScorer(head, QueryBank(text), **settings)


def _head(variant: str = "default") -> RowHead:
    """For words of the tiny encoder; every parameter random, so that nothing is hidden by a zero that it starts with."""
    torch.manual_seed(0)
    shapes = TokenShapes(streams=SHAPES.streams, text_dim=8, sentence_dim=8)
    head = build_head("qle", TINY | QLE_VARIANTS[variant], shapes).eval()
    assert isinstance(head, RowHead)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return head


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def difference(one: np.ndarray | None, other: np.ndarray | None) -> float:
    """Largest one, beside the largest number there is: these heads are wild, their logits are tens."""
    assert one is not None
    assert other is not None
    assert one.shape == other.shape
    return float(np.abs(one - other).max() / max(1.0, np.abs(one).max()))


def _video_of(space: Space) -> Video:
    return space.video(space.keys()[0])


@pytest.mark.parametrize("variant", ["default", "evidence", "ssm", "published"])
def test_memory_chunks_and_groups_change_no_number(
    variant: str, space: Callable[..., Space], rng: np.random.Generator
) -> None:
    video = _video_of(space(a=_video(rng, 83)))
    head = _head(variant)
    at_once = _scorer(head).score(video, QUERIES)
    in_pieces = _scorer(head, memory_bytes=200_000).score(video, QUERIES)
    assert [len(track.logit) for track in at_once] == [83] * 4
    for one, other in zip(at_once, in_pieces, strict=True):
        assert difference(one.logit, other.logit) < 1e-5
        assert difference(one.raw_logit, other.raw_logit) < 1e-5
        assert (one.uncertainty is None) == (variant != "evidence")


def test_the_small_budget_of_the_test_above_does_cut(space: Callable[..., Space], rng: np.random.Generator) -> None:
    video = _video_of(space(a=_video(rng, 83)))
    scorer = _scorer(_head(), memory_bytes=200_000)
    seen: list[tuple[int, int]] = []
    read_rows = scorer.head.read_rows

    def spy(streams, words, **named):  # type: ignore[no-untyped-def]
        seen.append((len(streams["patch"]), len(words.mask)))
        return read_rows(streams, words, **named)

    scorer.head.read_rows = spy  # type: ignore[method-assign]
    progress: list[tuple[int, int, str]] = []
    scorer.score(video, QUERIES, lambda *step: progress.append(step))
    passes = seen[1:]
    assert len(passes) > 8
    assert max(queries for _, queries in passes) < len(QUERIES)
    assert sum(rows * queries for rows, queries in passes) == 83 * len(QUERIES)
    done = [step[0] for step in progress]
    assert done == sorted(done)
    assert progress[-1] == (83 * 4, 83 * 4, "a.mp4")


def test_other_queries_repeats_and_order_change_no_number(
    space: Callable[..., Space], rng: np.random.Generator
) -> None:
    video, scorer = _video_of(space(a=_video(rng, 31))), _scorer(_head())
    alone = scorer.score(video, QUERIES[:1])[0]
    among = scorer.score(video, (QUERIES[3], QUERIES[0], QUERIES[1], QUERIES[0]))
    assert difference(alone.logit, among[1].logit) < 1e-5
    assert among[1] is among[3]
    assert scorer.score(video, ()) == []


def test_mode_of_the_modules_is_given_back(space: Callable[..., Space], rng: np.random.Generator) -> None:
    """Validation runs in the middle of training, and a bank may keep encodings that are trained on next."""
    scorer = _scorer(_head())
    scorer.head.train()
    scorer.text.encoder.eval()
    video = _video_of(space(a=_video(rng, 12)))
    first, second = (scorer.score(video, QUERIES[:1])[0].logit for _ in range(2))
    assert np.array_equal(first, second)  # no dropout
    assert scorer.head.training
    assert not scorer.text.encoder.training
    assert not scorer.text.encode(QUERIES[:1]).states.is_inference()


@pytest.mark.parametrize("variant", [name for name in QLE_VARIANTS if not name.startswith("published")])
def test_rows_that_are_not_valid_or_not_finite_do_not_exist(
    variant: str, space: Callable[..., Space], rng: np.random.Generator
) -> None:
    patch, valid = _video(rng, 40)
    spoiled = patch.copy()
    spoiled[7, 0, 0, 0], spoiled[21, 2, 1, 3] = np.nan, np.inf
    spoiled[9] += 5  # not valid: whatever stands there is not looked at
    hidden = valid.copy()
    hidden[[7, 21]] = False
    opened = space(spoiled=(spoiled, valid), hidden=(patch, hidden))
    scorer = _scorer(_head(variant))
    (one,), (other,) = (scorer.score(opened.video(key), QUERIES[:1]) for key in ("spoiled.mp4", "hidden.mp4"))
    assert np.array_equal(one.valid, hidden)
    assert np.array_equal(one.logit[hidden], other.logit[hidden])
    assert np.isfinite(one.logit).all()
    maps = scorer.maps(opened.video("spoiled.mp4"), QUERIES[:2], np.array([7, 8]))
    assert maps.shape == (2, 2, 3, 4)
    assert not maps[:, 0].any()
    assert np.isfinite(maps).all()


def test_video_without_a_finite_row_is_named(space: Callable[..., Space], rng: np.random.Generator) -> None:
    patch, valid = _video(rng, 5)
    video = _video_of(space(black=(patch * np.nan, valid)))
    with pytest.raises(CacheCorruptError, match=r"black\.mp4.*none of its 5 rows"):
        _scorer(_head()).score(video, QUERIES[:1])


def test_one_row_and_a_video_that_was_never_on_screen(space: Callable[..., Space], rng: np.random.Generator) -> None:
    patch, _ = _video(rng, 4)
    opened = space(one=(patch[:1], np.ones(1, bool)), off=(patch, np.zeros(4, bool)))
    scorer = _scorer(_head())
    (one,), (off,) = (scorer.score(opened.video(key), QUERIES[:1]) for key in ("one.mp4", "off.mp4"))
    assert (len(one.logit), one.edges_s.tolist(), bool(one.valid[0])) == (1, [0.0, 1.0], True)
    found = predict("one.mp4", QUERIES[0], one, Localization(bias=50))
    assert [(moment.start_s, moment.end_s) for moment in found.moments] == [(0.0, 1.0)]
    assert not off.valid.any()
    assert np.isfinite(off.logit).all()
    assert predict("off.mp4", QUERIES[0], off, Localization(bias=50)).moments == ()


def test_query_that_never_happens_is_absent(space: Callable[..., Space], rng: np.random.Generator) -> None:
    video = _video_of(space(a=_video(rng, 20)))
    (track,) = _scorer(_head()).score(video, QUERIES[:1])
    constants = Localization(bias=-90, presence_bias=-90)
    found = predict("a.mp4", QUERIES[0], track, constants, qid="7")
    assert (found.moments, found.qid, found.duration_s) == ((), "7", 20.0)
    assert 0 <= found.presence < 1e-6
    assert found.probability is not None
    assert found.probability.max() < 1e-6


def test_maps_add_up_to_raw_logits_in_any_chunk(space: Callable[..., Space], rng: np.random.Generator) -> None:
    video, head = _video_of(space(a=_video(rng, 50))), _head()
    rows = np.array([3, 44, 17, 3, 0])
    maps = _scorer(head).maps(video, QUERIES, rows)
    small = _scorer(head, memory_bytes=20_000).maps(video, QUERIES, rows)
    tracks = _scorer(head).score(video, QUERIES)
    assert difference(maps, small) < 1e-5
    for place, track in enumerate(tracks):
        assert track.raw_logit is not None
        assert difference(maps[place].mean((1, 2)), track.raw_logit[rows]) < 1e-5


def test_rate_of_the_run_chooses_the_rows(space: Callable[..., Space], rng: np.random.Generator) -> None:
    patch, _ = _video(rng, 30)
    opened = space(a=(patch, np.ones(30, bool)), b=(patch[::2], np.ones(15, bool)))
    every_second = _scorer(_head(), rate_fps=0.5).score(opened.video("a.mp4"), QUERIES[:1])[0]
    assert every_second.times_s.tolist() == np.arange(0.0, 30.0, 2.0).tolist()
    raw = _scorer(_head()).score(opened.video("b.mp4"), QUERIES[:1])[0].raw_logit
    assert difference(every_second.raw_logit, raw) < 1e-5


def test_annotations_come_back_in_their_order(space: Callable[..., Space], rng: np.random.Generator) -> None:
    opened = space(a=_video(rng, 10), b=_video(rng, 12))
    scorer = _scorer(_head())

    def ask(qid: str, video: str, query: str) -> Annotation:
        return Annotation(qid=qid, video=video, query=query, windows=((1.0, 2.0),))

    asked = [
        ask("0", "b", QUERIES[0]),
        ask("1", "a.mp4", QUERIES[1]),
        ask("2", "b", QUERIES[0]),
        ask("3", "a", QUERIES[0]),
    ]
    scored = score_annotations(scorer, opened, asked)
    assert [(one.annotation.qid, one.video) for one in scored] == [
        ("0", "b.mp4"), ("1", "a.mp4"), ("2", "b.mp4"), ("3", "a.mp4")
    ]  # fmt: skip
    assert [len(one.track.logit) for one in scored] == [12, 10, 12, 10]
    strangers = [*asked, ask("4", "nowhere", QUERIES[0])]
    with pytest.raises(AnnotationError, match="nowhere"):
        score_annotations(scorer, opened, strangers)
    assert len(score_annotations(scorer, opened, strangers, allow_missing=True)) == 4


def test_diverged_head_is_an_error_and_no_empty_result(space: Callable[..., Space], rng: np.random.Generator) -> None:
    head = _head()
    with torch.no_grad():
        head.relevance.bias.fill_(float("nan"))  # type: ignore[union-attr,operator]
    with pytest.raises(CheckpointError, match="not finite"):
        _scorer(head).score(_video_of(space(a=_video(rng, 10))), QUERIES[:1])


@pytest.mark.slow
def test_ten_hours_and_twenty_queries_stay_within_a_cap(tmp_path: Path, rng: np.random.Generator) -> None:
    """36,000 rows. The features of twenty queries alone would be 23 MB; the budget for everything is 12, of which the pass
    over time of a single query takes the most."""
    stream = Stream(name="patch", row_shape=(2, 2, 8), axes=("rows", "cols", "dim"), dtype="float16")
    spec = SpaceSpec(name="long", hashed={"made": "for a long video"}, streams=(stream,), recorded={})
    folder = create_space(tmp_path / "cache", spec)
    patch = rng.standard_normal((36_000, 2, 2, 8)).astype(np.float16)
    _commit(folder, "long.mp4", patch, np.ones(len(patch), bool))
    script = CHECKOUT / "tests" / "score_long.py"
    line = [sys.executable, str(script), str(folder.path), "long.mp4"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    idle_mib, peak_mib, num_tracks, num_rows = map(float, done.stdout.split())
    assert (num_tracks, num_rows) == (20, 36_000)
    assert peak_mib - idle_mib < 90
