"""Dropout keeps the mean, drops the share that it says, and repeats with the seed."""

import pytest
import torch

from qle.nn.dropout import Dropout, dropout


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.001])
def test_the_share_is_dropped_and_the_mean_kept(share: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, 333)
    dropped = dropout(x, share)
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=0.004)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert dropped.unique().numel() == 2


def test_elements_are_independent_of_their_neighbours() -> None:
    torch.manual_seed(0)
    zero = (dropout(torch.ones(200_000), 0.25) == 0).float()
    for lag in (1, 2, 7, 8, 64):
        together = (zero[lag:] * zero[:-lag]).mean().item()
        assert together == pytest.approx(1 / 16, abs=0.004)


def test_seeds_repeat_gradients_follow_and_nothing_happens_at_rest() -> None:
    module, x = Dropout(0.5), torch.randn(7, 5, requires_grad=True)
    torch.manual_seed(3)
    first = module(x)
    torch.manual_seed(3)
    assert torch.equal(first, module(x))
    first.sum().backward()
    assert torch.equal(x.grad != 0, first != 0)
    assert module.eval()(x) is x
    assert dropout(x, 0.0) is x
