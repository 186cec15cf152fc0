"""What every frozen encoder promises, checked on a small instance of each."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from qle.backbones import BACKBONES, BackboneRequest, build_backbone
from qle.backbones.base import Backbone
from qle.backbones.preprocess import Preprocess
from tests.small_models import REQUESTS


@pytest.fixture(scope="module", params=REQUESTS)
def request_for_it(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BackboneRequest:
    wanted = REQUESTS[request.param](tmp_path_factory.mktemp("model"))
    return replace(wanted, device="cpu", compute_dtype="float32")


@pytest.fixture(scope="module")
def backbone(request_for_it: BackboneRequest) -> Backbone:
    return build_backbone(request_for_it)


def clips(backbone: Backbone, batch: int = 3) -> torch.Tensor:
    """Smooth random pictures: noise is no picture, and grey differs too little from grey."""
    height, width = backbone.preprocess.output_shape
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(batch * backbone.context.length, 3, 6, 6, generator=generator) * 255
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return fine.round().to(torch.uint8).permute(0, 2, 3, 1).unflatten(0, (batch, -1)).contiguous()


def test_every_plug_in_is_covered() -> None:
    assert {name.split("-")[0] for name in REQUESTS} == set(BACKBONES)


def test_streams_are_what_was_declared(backbone: Backbone) -> None:
    frames = clips(backbone)
    streams = backbone.encode(frames)
    assert list(streams) == [stream.name for stream in backbone.streams]
    for declared in backbone.streams:
        tensor = streams[declared.name]
        assert tensor.shape == (*frames.shape[:2], *declared.row_shape)
        assert len(declared.axes) == len(declared.row_shape)
        assert str(tensor.dtype) == f"torch.{declared.dtype}"
        assert tensor.device == backbone.device
        assert torch.isfinite(tensor).all()
        assert not tensor.requires_grad


def test_a_clip_does_not_depend_on_its_batch(backbone: Backbone) -> None:
    frames = clips(backbone)
    together = backbone.encode(frames)
    for position in range(len(frames)):
        alone = backbone.encode(frames[position : position + 1])
        for name, tensor in alone.items():
            torch.testing.assert_close(tensor[0], together[name][position], atol=2e-5, rtol=1e-4)


def test_order_in_the_batch_is_kept(backbone: Backbone) -> None:
    frames = clips(backbone)
    forward, backward = backbone.encode(frames), backbone.encode(frames.flip(0))
    for name, tensor in forward.items():
        torch.testing.assert_close(tensor, backward[name].flip(0), atol=2e-5, rtol=1e-4)
        assert (tensor[0] - tensor[1]).abs().max() > 1e-3  # different pictures, different numbers


def test_the_same_input_gives_the_same_numbers_and_stays_as_it_was(backbone: Backbone, request_for_it) -> None:
    frames = clips(backbone)
    before = frames.clone()
    first = backbone.encode(frames)
    again = build_backbone(request_for_it).encode(frames)
    assert torch.equal(frames, before)
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])


def test_patches_follow_the_picture(backbone: Backbone) -> None:
    """Changing the lower right corner changes that patch more than any far one."""
    frames = clips(backbone, batch=1)
    changed = frames.clone()
    height, width = backbone.preprocess.output_shape
    rows, cols, _ = backbone.streams[0].row_shape
    changed[:, :, height - height // rows :, width - width // cols :] ^= 0xFF
    difference = (backbone.encode(frames)["patch"] - backbone.encode(changed)["patch"]).norm(dim=-1)
    assert (difference[0].flatten(1).argmax(dim=1) == rows * cols - 1).all()


def test_bfloat16_is_close_to_float32(backbone: Backbone, request_for_it: BackboneRequest) -> None:
    frames = clips(backbone)
    exact = backbone.encode(frames)
    rounded = build_backbone(replace(request_for_it, compute_dtype="bfloat16")).encode(frames)
    for name, tensor in exact.items():
        assert rounded[name].dtype == torch.float32
        assert torch.cosine_similarity(tensor, rounded[name], dim=-1).min() > 0.999


def test_what_defines_the_numbers_can_be_written_down(backbone: Backbone, request_for_it: BackboneRequest) -> None:
    provenance = json.loads(json.dumps(backbone.provenance()))
    assert len(provenance["weights"]) == 64
    assert {"id", "architecture", "layer"} <= provenance.keys()
    # Precision, device and where the file lies define nothing.
    other = build_backbone(replace(request_for_it, compute_dtype="bfloat16"))
    assert other.provenance() == backbone.provenance()
    assert json.loads(json.dumps(other.recorded()))["compute_dtype"] == "bfloat16"
    assert str(request_for_it.weights or "no path") not in json.dumps(provenance)


def test_preprocess_survives_being_saved(backbone: Backbone, rng: np.random.Generator) -> None:
    again = Preprocess.from_dict(json.loads(json.dumps(backbone.preprocess.to_dict())))
    picture = rng.integers(0, 256, (90, 70, 3), dtype=np.uint8)
    assert again == backbone.preprocess
    assert np.array_equal(again.geometry(picture), backbone.preprocess.geometry(picture))


@pytest.mark.parametrize(
    "spoil", [lambda x: x.float(), lambda x: x[0], lambda x: x[:, :, :-1], lambda x: x.movedim(-1, 2)]
)
def test_other_inputs_are_refused(backbone: Backbone, spoil) -> None:
    with pytest.raises(ValueError, match="encode takes uint8"):
        backbone.encode(spoil(clips(backbone)))
