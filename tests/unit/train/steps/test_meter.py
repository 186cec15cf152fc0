"""Sums of steps, and the first step that went wrong."""

import pytest
import torch
from accelerate import Accelerator

from qle.errors import TrainingError
from qle.train.steps.meter import Meter


@pytest.fixture
def meter() -> Meter:
    return Meter(torch.device("cpu"))


def test_means_are_over_steps_and_begin_anew_after_reading(meter):
    accelerator = Accelerator(cpu=True)
    for step, losses in enumerate([(1.0, 2.0), (3.0, 4.0)], start=1):
        for loss in losses:  # two batches to a step
            meter.add({"raw": torch.tensor(loss), "smooth": torch.tensor(0.5)})
        meter.end_step(step, torch.tensor(2.0 * step))
    found = meter.read(accelerator, 2)
    assert found == {"loss": 6.0, "loss/raw": 5.0, "loss/smooth": 1.0, "gradient_norm": 3.0}
    meter.add({"raw": torch.tensor(1.0)})
    meter.end_step(3, torch.tensor(1.0))
    assert meter.read(accelerator, 3) == {"loss": 1.0, "loss/raw": 1.0, "gradient_norm": 1.0}


def test_the_first_step_that_is_not_finite_is_named(meter):
    for step, norm in enumerate([1.0, float("nan"), 1.0, float("inf")], start=1):
        meter.add({"raw": torch.tensor(norm)})
        meter.end_step(step, torch.tensor(norm))
    with pytest.raises(TrainingError, match=r"step 2: the loss is not a finite number .* last checkpoint is kept"):
        meter.read(Accelerator(cpu=True), 4)
