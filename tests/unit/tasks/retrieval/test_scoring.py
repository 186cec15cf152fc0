"""Queries and cached videos: every score by itself, however it is asked for."""

import numpy as np
import pytest
import torch

from qle.cache.reader import open_cache
from qle.errors import CheckpointError
from qle.heads import build_head
from qle.heads.base import TokenShapes
from qle.heads.retrieval import FRAMES
from qle.tasks.retrieval import scoring as predict_retrieval
from qle.tasks.retrieval.batches.frames import FrameSource
from qle.tasks.retrieval.scoring import VideoRanker
from qle.text import TextRequest, build_text_encoder
from qle.text.bank import QueryBank
from tests.planted_retrieval import DIM, PlantedRetrieval, planted_retrieval

pytestmark = pytest.mark.usefixtures("one_thread")
QUERIES = ("a red clip", "a white bag", "a green hook")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedRetrieval:
    return planted_retrieval(tmp_path_factory.mktemp("planted"))


@pytest.fixture
def ranker(planted: PlantedRetrieval) -> VideoRanker:
    torch.manual_seed(0)
    frames = FrameSource(open_cache(planted.cache).space(), "frame", 4)
    text = build_text_encoder(TextRequest(name="tiny", dim=8), torch.device("cpu"))
    shapes = TokenShapes(streams={FRAMES: (DIM,)}, text_dim=8, sentence_dim=8)
    head = build_head("tmass", {"dim": 16, "num_frames": 4, "trials": 3}, shapes)
    return VideoRanker(head, QueryBank(text), frames, device=torch.device("cpu"))


def test_reading_in_parts_changes_nothing(ranker: VideoRanker, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ranker.frames.space.keys()
    whole = ranker.similarity(QUERIES, keys)
    assert whole.shape == (3, len(keys))
    assert whole.dtype == np.float32
    monkeypatch.setattr(predict_retrieval, "VIDEOS_PER_READ", 5)
    steps: list[tuple] = []
    parts = ranker.similarity(QUERIES, keys, lambda *step: steps.append(step))
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    assert [step[0] for step in steps] == [5, 10, 15, 20, 25, 30, 32]
    np.testing.assert_allclose(ranker.similarity([QUERIES[1]], [keys[7]]), whole[1:2, 7:8], atol=1e-6)


def test_repeated_queries_and_no_queries(ranker: VideoRanker) -> None:
    keys = ranker.frames.space.keys()[:4]
    found = ranker.similarity([QUERIES[0], QUERIES[1], QUERIES[0]], keys)
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_allclose(found[:2], ranker.similarity(QUERIES[:2], keys), atol=1e-6)
    assert ranker.similarity([], keys).shape == (0, 4)
    assert ranker.similarity(QUERIES, []).shape == (3, 0)


def test_a_head_in_training_is_scored_without_dropout_and_goes_on_training(ranker: VideoRanker) -> None:
    keys = ranker.frames.space.keys()[:4]
    ranker.head.train()
    first, again = (ranker.similarity(QUERIES, keys) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert ranker.head.training


def test_damaged_weights_are_named(ranker: VideoRanker) -> None:
    with torch.no_grad():
        ranker.head.pooling.out.weight.fill_(torch.nan)
    with pytest.raises(CheckpointError, match="scores that are not finite"):
        ranker.similarity(QUERIES, ranker.frames.space.keys())


def test_frames_and_head_must_agree(ranker: VideoRanker) -> None:
    frames = FrameSource(ranker.frames.space, "frame", 5)
    with pytest.raises(ValueError, match="reads 4 frames of a video, not 5"):
        VideoRanker(ranker.head, ranker.text, frames, device=ranker.device)
