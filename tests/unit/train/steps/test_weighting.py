"""Parts of a step add up to the loss and the gradient of the whole, however unevenly they are filled."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from qle.heads.rows import RowBatch, RowHead
from qle.train.steps.weighting import step_weights, weighted_total
from tests.small_heads import random_batch, small_head


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def part(batch: RowBatch, places: slice) -> RowBatch:
    """Some windows of a batch."""
    return replace(
        batch,
        streams={name: stream[places] for name, stream in batch.streams.items()},
        row_mask=batch.row_mask[places],
        times_s=batch.times_s[places],
        query_index=batch.query_index[places],
        query_mask=batch.query_mask[places],
        relevance=batch.relevance[places],
        relevance_mask=batch.relevance_mask[places],
    )


def gradients(head: RowHead, accelerator: Accelerator, batches: list[RowBatch]) -> tuple[float, dict[str, Tensor]]:
    head.zero_grad()
    weights = step_weights(accelerator, [head.loss_counts(batch) for batch in batches])
    loss = 0.0
    for batch, weight in zip(batches, weights, strict=True):
        total, parts = weighted_total(head.loss(head(batch), batch).terms, weight)
        total.backward()
        loss += float(sum(parts.values()))
    return loss, {name: value.grad.clone() for name, value in head.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("variant", ["default", "evidence"])
def test_a_batch_in_uneven_parts_gives_the_loss_and_gradient_of_the_whole(accelerator, variant):
    head = small_head(variant)
    whole = random_batch(num_windows=5)
    known = whole.relevance_mask.clone()
    known[0] = False  # a window that nobody labelled
    known[1, :, 2:] = False  # one pair of neighbours
    whole = replace(whole, relevance_mask=known)
    parts = [part(whole, slice(0, 1)), part(whole, slice(1, 2)), part(whole, slice(2, 5))]
    loss, expected = gradients(head, accelerator, [whole])
    split_loss, found = gradients(head, accelerator, parts)
    assert split_loss == pytest.approx(loss, rel=1e-5)
    assert loss == pytest.approx(head.loss(head(whole), whole).total.item(), rel=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-6), name


def test_a_step_without_any_label_has_no_loss_and_no_gradient(accelerator):
    head, batch = small_head(), random_batch()
    batch = replace(batch, relevance_mask=torch.zeros_like(batch.relevance_mask))
    loss, found = gradients(head, accelerator, [batch])
    assert loss == 0
    assert all(not gradient.any() for gradient in found.values())
