"""Hugging Face towers against the library itself: the same pixels, the same tokens, the same image embedding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoImageProcessor,
    AutoModel,
    CLIPModel,
    ResNetConfig,
    ResNetModel,
    SiglipModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from qle.backbones import BackboneRequest, build_backbone
from qle.backbones.base import Backbone
from qle.errors import CheckpointError, ConfigError
from tests.small_models import VISION, clip_folder, dinov2_folder, siglip_folder, vit_folder

pytestmark = pytest.mark.slow

FOLDERS = {"clip": clip_folder, "siglip": siglip_folder, "dinov2": dinov2_folder, "vit": vit_folder}


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FOLDERS[request.param](tmp_path_factory.mktemp(request.param))


def build(source: Path | str, **options) -> Backbone:
    return build_backbone(BackboneRequest(name=str(source), device="cpu", compute_dtype="float32", **options))


def processed(folder: Path, pictures: list[np.ndarray]) -> torch.Tensor:
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    return torch.cat([processor(images=picture, return_tensors="pt")["pixel_values"] for picture in pictures])


@pytest.mark.parametrize("shape", [(48, 48), (60, 107), (211, 96), (37, 40), (480, 854)])
def test_pixels_equal_those_of_the_librarys_processor(folder: Path, shape, rng: np.random.Generator) -> None:
    picture = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    preprocess = build(folder).preprocess
    ours = preprocess.normalise(torch.from_numpy(preprocess.geometry(picture)))
    # Geometry is equal to the bit; scale and mean are one multiply-add here and two roundings there.
    torch.testing.assert_close(ours[None], processed(folder, [picture]), atol=1e-6, rtol=0)


def test_tokens_equal_those_of_the_library(folder: Path, rng: np.random.Generator) -> None:
    pictures = [rng.integers(0, 256, (60, 80, 3), dtype=np.uint8) for _ in range(3)]
    backbone = build(folder)
    frames = torch.from_numpy(np.stack([backbone.preprocess.geometry(picture) for picture in pictures]))[:, None]
    streams = backbone.encode(frames)
    model = AutoModel.from_pretrained(folder).eval()
    pixels = processed(folder, pictures)
    with torch.no_grad():
        whole = getattr(model, "vision_model", model)(pixels)
        if isinstance(model, CLIPModel | SiglipModel):
            embedding = model.get_image_features(pixel_values=pixels)
            frame = embedding if isinstance(embedding, torch.Tensor) else embedding.pooler_output
        else:
            frame = whole.last_hidden_state[:, 0]
    patches = whole.last_hidden_state[:, -9:]
    torch.testing.assert_close(streams["patch"].flatten(2, 3)[:, 0], patches, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(streams["frame"][:, 0], frame, atol=1e-4, rtol=1e-4)


def test_only_the_vision_half_is_kept(tmp_path: Path) -> None:
    backbone = build(clip_folder(tmp_path))
    names = [name for name, _ in backbone._network.named_parameters()]  # type: ignore[attr-defined]
    assert names
    assert not [name for name in names if "text" in name or "logit_scale" in name]
    assert backbone.provenance()["frame"] == "projected"
    assert backbone.streams[1].row_shape == (24,)


def test_a_pooler_that_the_files_lack_is_not_made_up(tmp_path: Path) -> None:
    """The library would fill it with random numbers, other ones in every process, and with them the weights digest."""
    first, second = build(vit_folder(tmp_path)), build(tmp_path)
    assert first.provenance() == second.provenance()
    assert first.provenance()["frame"] == "cls"


def test_a_pooler_in_the_files_is_used(tmp_path: Path) -> None:
    model = ViTModel(ViTConfig(**VISION)).eval()
    model.save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 48, "width": 48}).save_pretrained(tmp_path)
    backbone = build(tmp_path)
    assert backbone.provenance()["frame"] == "pooled"
    frames = torch.randint(0, 256, (1, 1, 48, 48, 3), dtype=torch.uint8)
    expected = model(backbone.preprocess.normalise(frames[0])).pooler_output
    torch.testing.assert_close(backbone.encode(frames)["frame"][0], expected, atol=1e-5, rtol=1e-4)


def test_image_size_and_resize_are_the_users(tmp_path: Path) -> None:
    backbone = build(clip_folder(tmp_path), image_size=80, resize="letterbox")
    assert backbone.preprocess.output_shape == (80, 80)
    assert backbone.preprocess.resize == "letterbox"
    assert backbone.encode(torch.zeros(1, 1, 80, 80, 3, dtype=torch.uint8))["patch"].shape == (1, 1, 5, 5, 32)
    wider = build(dinov2_folder(tmp_path / "dinov2"), image_size=96).preprocess
    assert (wider.height, wider.resize_to) == (96, 112)  # the same share of the picture as 48 of 56
    with pytest.raises(ConfigError, match="multiple of its patch size"):
        build(tmp_path, image_size=50)


def test_no_such_model_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=r"^nobody/no-such-model: .*HF_HUB_OFFLINE is set: check the id"):
        build("nobody/no-such-model")
    with pytest.raises(ConfigError, match="check the id or folder"):
        build(tmp_path)  # an empty folder


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = vit_folder(tmp_path) / "model.safetensors"
    state = load_file(file)
    dropped = sorted(name for name in state if "layernorm_before" in name)[0]
    del state[dropped]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 tensors are missing or misshapen"):
        build(tmp_path)


def test_networks_without_patches_are_refused(tmp_path: Path) -> None:
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1])).save_pretrained(
        tmp_path
    )
    ViTImageProcessorPil(size={"height": 48, "width": 48}).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no square patches"):
        build(tmp_path)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"context": "centre"}, "one frame at a time"),
        ({"weights": Path("x.pth")}, "brings its own weights"),
    ],
)
def test_what_it_cannot_do_is_refused(tmp_path: Path, asked, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build(vit_folder(tmp_path), **asked)
    with pytest.raises(ConfigError, match="--weights FOLDER"):
        build("hf")
