"""Defaults by the device and by its share of the machine."""

import os
from pathlib import Path

import pytest
import torch

from qle.backbones import BackboneRequest, build_backbone
from qle.errors import ConfigError
from qle.extract.device import check_batch, engine_options
from qle.extract.request import ExtractRequest, TokenOptions
from qle.extract.sampling import Sampling

CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)


def request_for(*devices, **changes):
    fields = {
        "inputs": ("x.mp4",),
        "cache": Path("cache"),
        "backbones": (BackboneRequest(name="tiny"),),
        "sampling": Sampling(mode="native"),
        "tokens": TokenOptions(),
        "devices": devices,
    }
    return ExtractRequest(**(fields | changes))


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def test_devices_share_the_cores():
    for devices, lanes, workers in ((("cpu",), 8, 8), (("cpu", "cpu"), 4, 4), (("cpu",) * 20, 1, 1)):
        options = engine_options(request_for(*devices), CPU)
        assert (options.num_lanes, options.num_workers) == (lanes, workers)
    assert engine_options(request_for("cuda:0", "cuda:1"), CARD).num_workers == 3
    assert engine_options(request_for("cuda:0"), CARD).num_lanes == 1


def test_a_batch_larger_than_the_memory_is_refused_before_any_video_fails():
    """`--batch 100000000` failed every video of a run with "not enough memory", and each had to be tried again."""
    backbone = build_backbone(BackboneRequest(name="tiny", device="cpu"))
    check_batch(512, [backbone])
    with pytest.raises(ConfigError, match=r"--batch 100000000: so many frames of 224 x 224 take 15,052.8 GB") as error:
        check_batch(100_000_000, [backbone])
    assert len(str(error.value).splitlines()) == 2


def test_the_user_has_the_last_word(monkeypatch):
    monkeypatch.setenv("QLE_THREADS", "3")
    options = engine_options(request_for("cpu", num_workers=2, batch_frames=64), CPU)
    assert (options.num_lanes, options.num_workers, options.batch_frames) == (3, 2, 64)
    assert engine_options(request_for("cuda:0"), CARD).num_lanes == 1
