"""M2CRL against numbers that the official code produced, through the public weight loader."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qle.backbones import BackboneRequest, build_backbone
from qle.backbones.m2crl import M2crlBackbone
from tests.golden_sets import golden_cases, read_config

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = 1e-4


@golden_cases("m2crl")
def test_patches_and_clip_token_match(golden_case: Path) -> None:
    expected = load_file(golden_case)
    video = expected["in.video"]  # (batch, 3, time, height, width), normalised
    request = BackboneRequest(
        name="m2crl", weights=golden_case.parent / "weights.safetensors",
        num_heads=read_config(golden_case.parent)["num_heads"], device="cpu", compute_dtype="float32",
    )  # fmt: skip
    backbone = build_backbone(request)
    assert isinstance(backbone, M2crlBackbone)
    streams = backbone.encode_normalised(video.transpose(1, 2))
    torch.testing.assert_close(streams["patch"], expected["out.patch"], atol=TOLERANCE, rtol=0)
    for row in range(video.shape[2]):  # one clip token, repeated for each of its rows
        torch.testing.assert_close(streams["clip"][:, row], expected["out.cls"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(streams["frame"], expected["out.patch"].mean(dim=(2, 3)), atol=TOLERANCE, rtol=0)
