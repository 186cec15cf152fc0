"""What every head that ranks videos promises: the score of a text and a video depends on these two, and on nothing else."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from qle.heads import HEADS, head_class
from qle.heads.retrieval import RetrievalHead
from qle.text.base import Words
from tests.small_retrieval import VARIANTS, random_frames, random_texts, retrieval_batch, small_retrieval_head

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def head(variant: str) -> RetrievalHead:
    return small_retrieval_head(variant).requires_grad_(False)


@pytest.fixture
def words(variant: str) -> Words:
    return random_texts(6, VARIANTS[variant][2].sentence_dim)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


def test_every_head_is_under_contract() -> None:
    heads = {name for name in HEADS if head_class(name).task == "retrieval"}
    assert heads == {name for name, _, _ in VARIANTS.values()}


def test_each_pair_is_scored_by_itself(head: RetrievalHead, words: Words) -> None:
    frames = random_frames(5)
    together = head.similarity(words, frames)
    assert together.shape == (6, 5)
    assert torch.equal(head.similarity(words, frames), together)
    for text in range(6):
        for video in range(5):
            alone = head.similarity(words.select(torch.tensor([text])), frames[video : video + 1])
            close(alone, together[text : text + 1, video : video + 1])


def test_order_changes_nothing(head: RetrievalHead, words: Words) -> None:
    frames, texts, videos = random_frames(5), torch.randperm(6), torch.randperm(5)
    found = head.similarity(words.select(texts), frames[videos])
    close(found, head.similarity(words, frames)[texts][:, videos])


@pytest.mark.parametrize(("texts", "videos"), [(1, 1), (1, 7), (6, 1), (2, 40), (0, 3), (3, 0)])
def test_any_number_of_texts_and_videos(head: RetrievalHead, words: Words, texts: int, videos: int) -> None:
    found = head.similarity(words.select(torch.arange(texts)), random_frames(videos))
    assert found.shape == (texts, videos)
    assert torch.isfinite(found).all()


def test_frames_of_half_precision_and_frames_that_are_all_alike(head: RetrievalHead, words: Words) -> None:
    frames = random_frames(3)
    close(head.similarity(words, frames.half()), head.similarity(words, frames.half().float()))
    still = torch.zeros_like(frames)
    assert torch.isfinite(head.similarity(words, still)).all()


def test_the_loss_of_pairs_that_cannot_be_told_apart_is_nothing(variant: str) -> None:
    """One pair alone, where the published code fails on shapes; and texts that are true of every video of the batch."""
    head = small_retrieval_head(variant).train()
    single = retrieval_batch(variant, num_pairs=1)
    batch = retrieval_batch(variant)
    for some in (single, replace(batch, positives=torch.ones(4, 4, dtype=torch.bool))):
        losses = head.loss(head(some), some)
        losses.total.backward()
        assert losses.total.item() == pytest.approx(0, abs=1e-6)
        assert all(torch.isfinite(value.grad).all() for value in head.parameters() if value.grad is not None)


def test_another_true_video_is_no_negative(variant: str) -> None:
    head = small_retrieval_head(variant).requires_grad_(False)
    batch = retrieval_batch(variant)
    output = head(batch)
    also = batch.positives.clone()
    also[0, 2] = True
    without = head.loss(output, replace(batch, positives=also)).total
    assert without < head.loss(output, batch).total
    changed = replace(output, similarity=output.similarity.clone())
    changed.similarity[0, 2] += 0.5
    close(head.loss(changed, replace(batch, positives=also)).total, without)


def test_every_parameter_learns(variant: str) -> None:
    head = small_retrieval_head(variant).train()
    batch = retrieval_batch(variant)
    losses = head.loss(head(batch), batch)
    torch.testing.assert_close(losses.total, torch.stack(list(losses.terms.values())).sum())
    losses.total.backward()
    assert [name for name, value in head.named_parameters() if value.grad is None] == []
    assert {name: int(count) for name, count in head.loss_counts(batch).items()} == {"*": 4}


def test_training_samples_and_evaluation_does_not(variant: str) -> None:
    head, batch = small_retrieval_head(variant), retrieval_batch(variant)
    assert torch.equal(head(batch).similarity, head(batch).similarity)
    head.train()
    assert not torch.equal(head(batch).similarity, head(batch).similarity)


def test_a_shortlist_compares_unit_vectors(head: RetrievalHead, words: Words) -> None:
    coarse, videos = head.coarse(words), head.coarse_frames(random_frames(5).mean(1))
    assert coarse.shape[-1] == videos.shape[-1]
    for vectors in (coarse, videos):
        close(vectors.norm(dim=-1), torch.ones(len(vectors)))
    close(head.coarse(words.select(torch.tensor([4]))), coarse[4:5])


def test_a_state_dict_carries_the_scores(variant: str, words: Words) -> None:
    head, other = small_retrieval_head(variant), small_retrieval_head(variant, seed=5)
    frames = random_frames(4)
    with torch.no_grad():
        assert not torch.allclose(head.similarity(words, frames), other.similarity(words, frames))
        other.load_state_dict(head.state_dict())
        assert torch.equal(head.similarity(words, frames), other.similarity(words, frames))
