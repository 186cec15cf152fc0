"""The matcher against all assignments there are, and what it does when there is nothing to match."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qle.errors import ConfigError
from qle.nn.detr.matcher import MatchCosts, match


def _giou(a: Tensor, b: Tensor) -> float:
    (a0, a1), (b0, b1) = ((float(c - w / 2), float(c + w / 2)) for c, w in (a, b))
    shared = max(min(a1, b1) - max(a0, b0), 0.0)
    union, hull = (a1 - a0) + (b1 - b0) - shared, max(a1, b1) - min(a0, b0)
    return shared / union - (hull - union) / hull


def _cost(logit: Tensor, span: Tensor, target: Tensor, costs: MatchCosts) -> float:
    apart = float((span - target).abs().sum())
    return costs.span * apart - costs.giou * _giou(span, target) - costs.label * float(logit.softmax(-1)[0])


@pytest.mark.parametrize("counts", [(1, 3, 0, 2), (4, 5, 1, 1)])
def test_the_cheapest_of_all_assignments_is_found(counts: tuple[int, ...]) -> None:
    """Also where an item has more moments than there are queries."""
    torch.manual_seed(0)
    layers, items, queries = 2, len(counts), 4
    logits, spans = torch.randn(layers, items, queries, 2), torch.rand(layers, items, queries, 2) * 0.5 + 0.1
    targets, costs = torch.rand(sum(counts), 2) * 0.5 + 0.1, MatchCosts(span=3.0, giou=2.0, label=1.0)
    found = match(logits, spans, targets, counts, costs)
    for layer, item in itertools.product(range(layers), range(items)):
        own = list(targets.split(counts)[item])
        first = sum(counts[:item])
        mine = (found.layer == layer) & (found.item == item)
        pairs = list(zip(found.query[mine].tolist(), (found.target[mine] - first).tolist(), strict=True))
        size = min(queries, counts[item])
        assert len(pairs) == size
        assert [query for query, _ in pairs] == sorted({query for query, _ in pairs})
        assert len({target for _, target in pairs}) == size
        prices = [[_cost(logits[layer, item, q], spans[layer, item, q], t, costs) for t in own] for q in range(queries)]
        best = min(
            (
                sum(prices[q][t] for q, t in zip(some, others, strict=True))
                for some in itertools.combinations(range(queries), size)
                for others in itertools.permutations(range(counts[item]), size)
            ),
            default=0.0,
        )
        assert sum(prices[q][t] for q, t in pairs) == pytest.approx(best, abs=1e-4)


def test_the_device_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For all layers and items together; each question would make the host wait for the device."""
    asked = []
    cpu = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda tensor: asked.append(tensor.shape) or cpu(tensor))
    match(torch.randn(3, 8, 5, 2), torch.rand(3, 8, 5, 2), torch.rand(12, 2), (2, 1, 1, 2, 3, 1, 1, 1), MatchCosts())
    assert asked == [(3, 8, 5, 3)]


def test_nothing_to_match_is_no_match() -> None:
    found = match(torch.randn(2, 3, 4, 2), torch.rand(2, 3, 4, 2), torch.zeros(0, 2), (0, 0, 0), MatchCosts())
    assert len(found.layer) == len(found.target) == 0


def test_lost_numbers_are_left_to_the_loss() -> None:
    """The assignment refused them with an error of another library, before the training could say what happened."""
    logits = torch.full((1, 1, 3, 2), torch.nan)
    found = match(logits, torch.rand(1, 1, 3, 2), torch.rand(2, 2), (2,), MatchCosts())
    assert sorted(found.target.tolist()) == [0, 1]


def test_predicted_spans_without_length_cost_a_number() -> None:
    """Where both are a point and the same one, the published overlap is 0 / 0."""
    spans = F.pad(torch.full((1, 1, 2, 1), 0.5), (0, 1))
    found = match(torch.zeros(1, 1, 2, 2), spans, torch.tensor([[0.5, 0.0]]), (1,), MatchCosts())
    assert found.query.tolist() == [0]


def test_costs_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"costs.span = -1.0: expected 0 or more"):
        MatchCosts(span=-1.0)
