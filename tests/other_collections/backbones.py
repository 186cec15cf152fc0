"""Sets of M2CRL: numbers of our own encoder under the official names."""

import json
import random
from pathlib import Path

import torch
from safetensors.torch import save_file

from qle.backbones import BackboneRequest, build_backbone
from qle.backbones.m2crl import M2crlBackbone
from qle.backbones.m2crl_files import M2crlConfig
from tests.other_collections.shared import write_case
from tests.small_m2crl import m2crl_state


def m2crl_set(folder: Path, draw: random.Random) -> None:
    """With a picture and a clip that are not of the trained size."""
    num_heads, patch, frames = draw.choice([1, 2, 3]), draw.choice([4, 8]), draw.randint(2, 5)
    config = M2crlConfig(
        width=8 * num_heads, depth=draw.randint(1, 3), num_heads=num_heads, mlp_width=draw.randint(9, 40),
        patch_size=patch, grid=draw.randint(2, 4), num_frames=frames,
    )  # fmt: skip
    weights = folder / "weights.safetensors"
    state = m2crl_state(config, seed=draw.randrange(1000))
    save_file({f"backbone.{name}": tensor for name, tensor in state.items()}, weights)
    (folder / "config.json").write_text(json.dumps({"num_heads": num_heads}))
    request = BackboneRequest(name="m2crl", weights=weights, num_heads=num_heads, device="cpu", compute_dtype="float32")
    backbone = build_backbone(request)
    assert isinstance(backbone, M2crlBackbone)
    for grid, length in (((config.grid, config.grid), frames), ((draw.randint(2, 5), draw.randint(2, 5)), frames + 1)):
        video = torch.randn(draw.randint(1, 2), 3, length, *(patch * side for side in grid))
        streams = backbone.encode_normalised(video.transpose(1, 2))
        outputs = {"out.patch": streams["patch"], "out.cls": streams["clip"][:, 0]}
        write_case(folder, draw, {"in.video": video, **outputs})
