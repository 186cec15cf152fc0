"""Stage 1: a shortlist that is long enough changes nothing, ties are settled by key, coarse vectors are kept and checked."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from qle.cache.reader import open_cache
from qle.cache.spaces import create_space
from qle.errors import CacheMissingError, CheckpointError
from qle.heads import build_head
from qle.heads.base import TokenShapes
from qle.heads.retrieval import RetrievalHead
from qle.runs.load import load_run
from qle.runs.record import RunRecord, SpaceUse, save_run
from qle.search.coarse import KEPT_RETRIEVERS
from qle.search.pooled import RECORD_FILE
from qle.search.videos import best_of, open_search
from qle.tasks.retrieval.batches.frames import FrameSource
from qle.tasks.retrieval.scoring import VideoRanker
from qle.text import TextRequest, build_text_encoder
from tests.planted_retrieval import DIM, retrieval_spec
from tests.tiny_cache import commit_rows

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
CPU = torch.device("cpu")
SETTINGS = {"num_frames": 3, "dim": 24, "trials": 4}
QUERIES = ("a red clip", "hook", "a blue needle in view", "bag")
NUM_VIDEOS = 70


def make_run(folder: Path, cache: Path, seed: int = 0) -> Path:
    """As training would leave it, with weights that nobody trained."""
    torch.manual_seed(seed)
    space = open_cache(cache).space()
    text = build_text_encoder(TextRequest(name="tiny", dim=8), "cpu")
    shapes = TokenShapes(streams={"frames": (DIM,)}, text_dim=text.dim, sentence_dim=text.sentence_dim)
    use = SpaceUse(
        name=space.record.name, hash=space.record.hash, hashed=space.record.hashed, rate_fps=None,
        streams={stream.name: stream.row_shape for stream in space.record.streams},
    )  # fmt: skip
    record = RunRecord(
        head="tmass", head_config=SETTINGS, text=text.spec(), text_dim=text.dim, sentence_dim=text.sentence_dim, space=use,
        recipe=FrameSource(space, "frame", 3).recipe, priors=None, settings={}, selection={}, versions={},
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    save_run(folder, record, build_head("tmass", SETTINGS, shapes), text.train_state(), {})
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cache")
    space = create_space(root / "cache", retrieval_spec())
    rng = np.random.default_rng(0)
    for number in range(NUM_VIDEOS):
        frame = rng.normal(size=(4, DIM)) + rng.normal(size=DIM)
        commit_rows(space, f"{number:02d}.mp4", np.arange(4) + 0.5, values={"frame": frame.astype(np.float16)})
    return root / "cache"


@pytest.fixture
def run(cache: Path, tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", cache)


def exhaustive(run: Path, cache: Path) -> np.ndarray:
    loaded = load_run(run, CPU)
    frames = FrameSource.from_recipe(open_cache(cache), loaded.record.recipe)
    assert isinstance(loaded.head, RetrievalHead)
    return VideoRanker(loaded.head, loaded.text, frames, device=CPU).similarity(QUERIES, frames.space.keys())


@pytest.mark.parametrize("shortlist", [NUM_VIDEOS, 1000])
def test_a_shortlist_of_all_videos_is_exhaustive_scoring(cache, run, shortlist):
    search = open_search(run, cache, device=CPU)
    expected = exhaustive(run, cache)
    for own, ranked in zip(expected, search.rank(QUERIES, shortlist), strict=True):
        assert np.allclose(ranked.similarity, own[ranked.numbers], atol=1e-5)
        assert (np.diff(ranked.similarity) <= 0).all()
        assert sorted(ranked.numbers.tolist()) == list(range(NUM_VIDEOS))
        assert ranked.numbers[0] == own.argmax()
    assert np.allclose(search.similarity(QUERIES, np.arange(NUM_VIDEOS)), expected, atol=1e-5)


def test_a_shortlist_holds_the_best_by_mean_frames_with_exact_scores(cache, run):
    search = open_search(run, cache, device=CPU)
    expected, rough = exhaustive(run, cache), search.rough(QUERIES, np.arange(NUM_VIDEOS))
    for own, coarse, ranked in zip(expected, rough, search.rank(QUERIES, 20), strict=True):
        assert set(ranked.numbers.tolist()) == set(np.argsort(-coarse)[:20].tolist())
        assert np.allclose(ranked.similarity, own[ranked.numbers], atol=1e-5)
    some = np.arange(0, NUM_VIDEOS, 3)
    ranked = search.rank(QUERIES[:1], 5, some)[0]
    assert set(ranked.numbers.tolist()) <= set(some.tolist())
    means = FrameSource(open_cache(cache).space(), "frame", 3).frames(open_cache(cache).space().keys()).mean(1)
    with torch.no_grad():
        vectors = search.head.coarse_frames(torch.from_numpy(means))
        words = search.text.encode(QUERIES)
        assert np.allclose(rough, (search.head.coarse(words) @ vectors.T).numpy(), atol=5e-3)


def test_ties_are_settled_by_key(tmp_path):
    space = create_space(tmp_path / "cache", retrieval_spec())
    frame = np.random.default_rng(0).normal(size=(4, DIM)).astype(np.float16)
    for key in ("b", "a", "c", "d"):
        commit_rows(space, key, np.arange(4) + 0.5, values={"frame": frame})
    search = open_search(make_run(tmp_path / "run", tmp_path / "cache"), tmp_path / "cache", device=CPU)
    for shortlist in (2, 4):
        ranked = search.rank(QUERIES[:1], shortlist)[0]
        assert [search.index.key(place) for place in ranked.numbers] == ["a", "b", "c", "d"][:shortlist]


def test_best_of_takes_the_first_of_equal_ones():
    assert best_of(np.array([1.0, 3.0, 1.0, 2.0, 1.0]), 3).tolist() == [0, 1, 3]
    assert best_of(np.array([np.nan, -np.inf]), 5).tolist() == [0, 1]


def coarse_files(search) -> set[str]:
    return {path.name for path in search.index.folder.glob("coarse-*")}


def test_coarse_vectors_are_kept_for_a_retriever_and_made_again_where_damaged(cache, run, tmp_path, monkeypatch):
    first = open_search(run, cache, device=CPU)
    expected, made = first.rough(QUERIES, np.arange(NUM_VIDEOS)), []
    true = type(first.head).coarse_frames
    monkeypatch.setattr(type(first.head), "coarse_frames", lambda head, x: (made.append(len(x)), true(head, x))[1])
    assert np.array_equal(open_search(run, cache, device=CPU).rough(QUERIES, np.arange(NUM_VIDEOS)), expected)
    assert made == []
    (path,) = first.index.folder.glob("coarse-*.f16")
    content = path.read_bytes()
    for damaged in (content[:-2], content[:99] + b"\0\1" + content[101:]):
        path.write_bytes(damaged)
        again = open_search(run, cache, device=CPU)
        assert np.array_equal(again.rough(QUERIES, np.arange(NUM_VIDEOS)), expected)
        (path,) = again.index.folder.glob("coarse-*.f16")
    assert made == [NUM_VIDEOS] * 2
    for seed in range(1, KEPT_RETRIEVERS + 3):
        other = open_search(make_run(tmp_path / f"run{seed}", cache, seed), cache, device=CPU)
    assert len(coarse_files(other)) == 2 * KEPT_RETRIEVERS


def test_only_new_videos_go_through_the_retriever(tmp_path, monkeypatch):
    space = create_space(tmp_path / "cache", retrieval_spec())
    rng = np.random.default_rng(0)
    keys = [f"{number}" for number in range(6)]
    for key in keys[:4]:
        commit_rows(space, key, np.arange(4) + 0.5, values={"frame": rng.normal(size=(4, DIM)).astype(np.float16)})
    run = make_run(tmp_path / "run", tmp_path / "cache")
    first = open_search(run, tmp_path / "cache", device=CPU)
    before, made = first.rough(QUERIES, np.arange(4)), []
    true = type(first.head).coarse_frames
    monkeypatch.setattr(type(first.head), "coarse_frames", lambda head, x: (made.append(len(x)), true(head, x))[1])
    for key in keys[4:]:
        commit_rows(space, key, np.arange(4) + 0.5, values={"frame": rng.normal(size=(4, DIM)).astype(np.float16)})
    later = open_search(run, tmp_path / "cache", device=CPU)
    assert made == [2]
    assert np.array_equal(later.rough(QUERIES, np.arange(6))[:, :4], before)


def test_damaged_means_are_found_where_they_are_needed(tmp_path):
    space = create_space(tmp_path / "cache", retrieval_spec())
    for key in "abc":
        commit_rows(space, key, np.arange(4) + 0.5, values={"frame": np.ones((4, DIM), np.float16)})
    run = make_run(tmp_path / "run", tmp_path / "cache")
    search = open_search(run, tmp_path / "cache", device=CPU)
    for path in search.index.folder.glob("coarse-*"):
        path.unlink()
    (means,) = search.index.folder.glob("means-*")
    means.write_bytes(b"\1" + means.read_bytes()[1:])
    again = open_search(run, tmp_path / "cache", device=CPU)
    assert len(again.rank(QUERIES[:1], 2)[0].numbers) == 2
    assert (again.index.folder / RECORD_FILE).exists()
    assert not means.exists()


def test_a_space_without_videos_and_a_run_that_ranks_none_are_refused(tmp_path, cache):
    create_space(tmp_path / "cache", retrieval_spec())
    run = make_run(tmp_path / "run", tmp_path / "cache")
    with pytest.raises(CacheMissingError, match="holds no video that can be searched yet\nfill it with"):
        open_search(run, tmp_path / "cache", device=CPU)
    with pytest.raises(CheckpointError, match="no such run folder"):
        open_search(tmp_path / "none", cache, device=CPU)
