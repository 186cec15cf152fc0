"""Batches of texts and videos: the same from every placement, repeatable, and nothing that is known to be absent."""

from pathlib import Path

import numpy as np
import pytest
import torch

from qle.cache.reader import open_cache
from qle.data.annotations import Annotation, read_annotations
from qle.data.loading.share import Share
from qle.errors import AnnotationError, ConfigError
from qle.heads.retrieval import RetrievalBatch
from qle.tasks.retrieval.batches.config import RetrievalDataConfig
from qle.tasks.retrieval.batches.frames import FrameSource
from qle.tasks.retrieval.batches.loader import RetrievalBatches, retrieval_batches
from qle.text import TextRequest, build_text_encoder
from qle.text.bank import QueryBank
from tests.planted_retrieval import PlantedRetrieval, planted_retrieval

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedRetrieval:
    return planted_retrieval(tmp_path_factory.mktemp("planted"))


def open_batches(planted: PlantedRetrieval, **settings: object) -> RetrievalBatches:
    source = FrameSource(open_cache(planted.cache).space(), "frame", 4)
    text = settings.pop("text", None)
    share = Share(**{"seed": 0} | {name: settings.pop(name) for name in ("shard", "seed") if name in settings})
    annotations = read_annotations(planted.train, allow_unlabelled=True)
    config = RetrievalDataConfig(**({"pairs_per_batch": 10} | settings))
    return retrieval_batches(source, source.match(annotations)[0], config, share, text=text)


def told(batches: list[RetrievalBatch]) -> list[tuple]:
    return [(batch.videos, batch.queries, batch.query_index.tolist(), batch.frames.tolist()) for batch in batches]


def test_a_text_stands_beside_its_own_video(planted: PlantedRetrieval) -> None:
    asked = {(one.video, one.query) for one in read_annotations(planted.train, allow_unlabelled=True)}
    with open_batches(planted) as batches:
        source = FrameSource(open_cache(planted.cache).space(), "frame", 4)
        seen = list(batches)
    assert (len(batches), len(seen), batches.placement.name) == (3, 3, "ram")
    for batch in seen:
        texts = [batch.queries[index] for index in batch.query_index.tolist()]
        assert all(pair in asked for pair in zip(batch.videos, texts, strict=True))
        np.testing.assert_array_equal(batch.frames.float().numpy(), source.frames(batch.videos))
        assert len(set(batch.queries)) == len(batch.queries)
        known = [[(video, text) in asked for video in batch.videos] for text in texts]
        assert batch.positives.tolist() == known
        assert sum(map(sum, known)) > len(texts)  # three videos show the same


@pytest.mark.parametrize("placement", ["device", "mapped", "streamed"])
def test_every_placement_gives_the_same(planted: PlantedRetrieval, placement: str) -> None:
    with open_batches(planted, placement="ram") as packed, open_batches(planted, placement=placement) as other:
        assert told(list(packed)) == told(list(other))


def test_an_epoch_is_repeatable_from_any_batch_on(planted: PlantedRetrieval) -> None:
    with open_batches(planted, captions_per_video=2) as batches:
        assert len(batches) == 5
        batches.set_epoch(3)
        whole = told(list(batches))
        batches.set_epoch(3, first_batch=2)
        assert told(list(batches)) == whole[2:]
        batches.set_epoch(4)
        assert told(list(batches)) != whole
        with pytest.raises(ConfigError, match="at most 5 batches"):
            batches.set_epoch(0, 6)
    with open_batches(planted, captions_per_video=2, seed=1) as batches:
        batches.set_epoch(3)
        assert told(list(batches)) != whole


def test_every_process_has_the_whole_batch(planted: PlantedRetrieval) -> None:
    """Its loss compares all pairs with each other: halves of a batch would be another loss."""
    with open_batches(planted) as alone, open_batches(planted, shard=(1, 2)) as second:
        assert told(list(alone)) == told(list(second))


def test_sentences_of_a_frozen_encoder_come_along(planted: PlantedRetrieval) -> None:
    bank = QueryBank(build_text_encoder(TextRequest(name="tiny", dim=16), torch.device("cpu")).requires_grad_(False))
    with open_batches(planted, text=bank) as batches:
        batch = next(iter(batches))
    expected = bank.encode(batch.queries)
    torch.testing.assert_close(batch.words.sentence, expected.sentence)
    assert batch.words.states.shape == (len(batch.queries), 0, 16)
    with open_batches(planted) as batches:
        assert next(iter(batches)).words is None


def test_one_video_cannot_be_told_from_others(planted: PlantedRetrieval) -> None:
    source = FrameSource(open_cache(planted.cache).space(), "frame", 4)
    rows = [
        Annotation(qid="1", video="train0.mp4", query="smoke", windows=((0.0, 1.0),)),
        Annotation(qid="2", video="train1.mp4", query="smoke", windows=()),
    ]
    with pytest.raises(AnnotationError, match=r"only 'train0.mp4' has a query"):
        retrieval_batches(source, source.match(rows)[0], RetrievalDataConfig(), Share(seed=0))


@pytest.mark.parametrize(
    ("name", "value"),
    [("pairs_per_batch", 1), ("captions_per_video", 0), ("prefetch_batches", 0), ("placement", "moon")],
)
def test_settings_that_make_no_batches_are_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"data.{name} = "):
        RetrievalDataConfig(**{name: value})


def test_fewer_videos_than_pairs_make_one_batch_of_all(planted: PlantedRetrieval, tmp_path: Path) -> None:
    with open_batches(planted, pairs_per_batch=100) as batches:
        (batch,) = list(batches)
        assert batch.num_items == len(set(batch.videos)) == 24
        assert batches.wait_s > 0
        assert batches.num_nonfinite_rows == 0
