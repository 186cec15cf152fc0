"""Small instances of every backbone, made on the spot and saved as their real files are."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from qle.backbones import BackboneRequest
from qle.backbones.m2crl_files import M2crlConfig, expected_shapes

M2CRL = M2crlConfig(width=64, depth=2, num_heads=1, mlp_width=96, patch_size=16, grid=3, num_frames=4)

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = SIZES | {"image_size": 48, "patch_size": 16}
TEXT = SIZES | {"vocab_size": 50, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2}


def m2crl_state(config: M2crlConfig = M2CRL, seed: int = 0) -> dict[str, Tensor]:
    """The canonical tensors with lively numbers; the temporal path is not the zero of a fresh model."""
    generator = torch.Generator().manual_seed(seed)
    shapes = expected_shapes(config).items()
    state = {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes}
    return {
        name: tensor + 1 if "norm" in name and name.endswith("weight") else tensor for name, tensor in state.items()
    }


def m2crl_file(folder: Path) -> Path:
    path = folder / "m2crl.safetensors"
    save_file({f"backbone.{name}": tensor for name, tensor in m2crl_state().items()}, path)
    return path


def clip_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=24)).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


def siglip_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    SiglipModel(SiglipConfig(vision_config=VISION, text_config=TEXT)).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


def dinov2_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    sizes = {name: size for name, size in VISION.items() if name != "intermediate_size"} | {"image_size": 80}
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(folder)  # sees 48, so its position embedding is stretched
    BitImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


def vit_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    ViTModel(ViTConfig(**VISION), add_pooling_layer=False).save_pretrained(folder)  # as DINO's published files are
    ViTImageProcessorPil(size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


REQUESTS: dict[str, Callable[[Path], BackboneRequest]] = {
    "tiny": lambda folder: BackboneRequest(name="tiny"),
    "m2crl-centre": lambda folder: BackboneRequest(name="m2crl", weights=m2crl_file(folder)),
    "m2crl-tile": lambda folder: BackboneRequest(
        name="m2crl", weights=m2crl_file(folder), context="tile", image_size=64
    ),
    "m2crl-single": lambda folder: BackboneRequest(name="m2crl", weights=m2crl_file(folder), context="single"),
    "hf-clip": lambda folder: BackboneRequest(name=str(clip_folder(folder))),
    "hf-siglip": lambda folder: BackboneRequest(name=str(siglip_folder(folder)), image_size=64),
    "hf-dinov2": lambda folder: BackboneRequest(name=str(dinov2_folder(folder))),
    "hf-vit": lambda folder: BackboneRequest(name="hf", weights=vit_folder(folder)),
}
"""Every entry of BACKBONES in the forms that matter."""
