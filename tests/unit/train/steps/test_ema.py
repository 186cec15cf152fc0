"""The running mean: what it is, where it stands, and that it leaves the weights alone."""

import pytest
import torch
from torch import nn

from qle.train.steps.ema import Ema


def test_the_mean_follows_its_formula_and_swaps_in_and_out():
    model = nn.Linear(3, 1)
    ema = Ema(model, 0.9)
    expected = model.weight.detach().clone()
    for step in range(1, 6):
        with torch.no_grad():
            model.weight.add_(1.0)
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    own = model.weight.detach().clone()
    with ema.in_place():
        assert torch.allclose(model.weight, expected)
    assert torch.equal(model.weight, own)


def test_the_weights_come_back_when_something_fails_within():
    model = nn.Linear(3, 1)
    ema = Ema(model, 0.5)
    with torch.no_grad():
        model.weight.add_(1.0)
    own = model.weight.detach().clone()
    with pytest.raises(KeyError), ema.in_place():
        raise KeyError
    assert torch.equal(model.weight, own)


def test_without_decay_the_mean_is_the_weights():
    model = nn.Linear(3, 1)
    ema = Ema(model, 0.0)
    own = model.weight.detach().clone()
    ema.update(1)
    with ema.in_place():
        assert torch.equal(model.weight, own)
    assert ema.state() == {}
