"""Losses of saliency, classes and sets against their definitions, written out."""

import math

import pytest
import torch
import torch.nn.functional as F

from qle.errors import ConfigError
from qle.nn.detr.matcher import Matches
from qle.nn.detr.moment_losses import alignment_loss, class_loss, margin_loss, negative_loss, rank_loss
from qle.nn.detr.set_losses import SetLossConfig, weighted


@pytest.fixture
def matches() -> Matches:
    """One layer, two items: query 1 of the first, none of the second."""
    zero, one = torch.tensor([0]), torch.tensor([1])
    return Matches(layer=zero, item=zero, query=one, target=zero)


def test_the_rank_loss_is_a_cross_entropy_at_every_level() -> None:
    torch.manual_seed(0)
    scores, mask = torch.randn(3, 7), torch.arange(7) < torch.tensor([7, 4, 5])[:, None]
    labels = torch.randint(0, 13, (3, 7)).float() * mask
    labels[2] = 0  # nothing is relevant there
    expected = 0.0
    for level in range(1, 12):
        for item in range(3):
            share = (scores[item][mask[item]] / 0.5).log_softmax(-1)
            is_positive = labels[item][mask[item]] >= level
            if is_positive.any():
                expected -= float(share[is_positive].mean()) / 3
    found = rank_loss(scores, labels, mask, temperature=0.5, divisor=12)
    assert float(found) == pytest.approx(expected / 12, rel=1e-4)
    assert float(rank_loss(scores, torch.zeros(3, 7), mask)) == 0


def test_margins_count_pairs_that_there_are_over_all() -> None:
    scores = torch.tensor([[1.0, 0.9, 0.0], [0.0, 5.0, 0.0]])
    better, worse = torch.tensor([[0, 0], [0, 0]]), torch.tensor([[1, 2], [1, 1]])
    mask = torch.tensor([[True, True], [False, False]])
    assert float(margin_loss(scores, better, worse, mask, margin=0.2)) == pytest.approx(2 * 0.1 / 4)


def test_the_negative_term_is_finite_where_the_published_one_is_not() -> None:
    mask = torch.tensor([[True, True, False]])
    mild, sure = torch.tensor([[0.3, -2.0, 9.0]]), torch.tensor([[50.0, 0.0, 9.0]])
    torch.testing.assert_close(negative_loss(mild, mask), negative_loss(mild, mask, published=True))
    assert float(negative_loss(sure, mask)) == pytest.approx(50 + math.log(2), rel=1e-5)
    assert torch.isinf(negative_loss(sure, mask, published=True))


def test_unmatched_queries_weigh_less(matches: Matches) -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 3, 2)
    truth = torch.ones(2, 3, dtype=torch.long)
    truth[0, 1] = 0
    each = F.cross_entropy(logits[0].flatten(0, 1), truth.flatten(), torch.tensor([1.0, 0.1]), reduction="none")
    torch.testing.assert_close(class_loss(logits, matches, background_weight=0.1)[0], each.mean())


def test_alignment_hears_real_words_only_and_skips_items_without_a_match(matches: Matches) -> None:
    torch.manual_seed(0)
    queries, words = torch.randn(1, 2, 3, 4), torch.randn(2, 5, 4)
    mask = torch.tensor([[True, True, False, False, False], [True] * 5])
    found = alignment_loss(queries, words, mask, matches, temperature=0.5)
    agreed = queries[0, 0] @ words[0, :2].sum(0) / 0.5
    torch.testing.assert_close(found[0], (agreed.logsumexp(0) - agreed[1]) / 2)


def test_parts_and_layers_share_the_weight_of_their_term() -> None:
    terms = {name: torch.tensor(1.0) for name in ("span", "span_0", "saliency_rank", "align")}
    found = weighted(terms, SetLossConfig(span=7, saliency=3).weights() | {"align": 0.5})
    assert {name: float(value) for name, value in found.items()} == {
        "span": 7, "span_0": 7, "saliency_rank": 3, "align": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("setting", [{"label": -1.0}, {"rank_temperature": 0.0}, {"saliency": math.nan}])
def test_weights_are_checked(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        SetLossConfig(**setting)
