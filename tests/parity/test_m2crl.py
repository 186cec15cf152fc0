"""M2CRL against numbers that the official code produced, through the public weight loader."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qle.backbones import BackboneRequest, build_backbone
from qle.backbones.m2crl import M2crlBackbone

FOLDER = Path(os.environ.get("QLE_GOLDEN", Path(__file__).resolve().parents[3] / "shared" / "golden")) / "m2crl"
CASES = sorted(FOLDER.glob("case-*.safetensors"))
TOLERANCE = 1e-4


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no golden numbers at {FOLDER}")
def test_the_folder_holds_cases() -> None:
    assert CASES
    assert (FOLDER / "weights.safetensors").is_file()


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_patches_and_clip_token_match(case: Path) -> None:
    expected = load_file(case)
    video = expected["in.video"]  # (batch, 3, time, height, width), normalised
    heads = json.loads((FOLDER / "config.json").read_text())["num_heads"]
    backbone = build_backbone(
        BackboneRequest(
            name="m2crl", weights=FOLDER / "weights.safetensors", num_heads=heads, device="cpu", compute_dtype="float32"
        )
    )
    assert isinstance(backbone, M2crlBackbone)
    streams = backbone.encode_normalised(video.transpose(1, 2))
    torch.testing.assert_close(streams["patch"], expected["out.patch"], atol=TOLERANCE, rtol=0)
    for row in range(video.shape[2]):  # one clip token, repeated for each of its rows
        torch.testing.assert_close(streams["clip"][:, row], expected["out.cls"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(streams["frame"], expected["out.patch"].mean(dim=(2, 3)), atol=TOLERANCE, rtol=0)
