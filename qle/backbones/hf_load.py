"""Hugging Face vision towers: found, loaded without their text half, and their image processor read as a `Preprocess`.

    id or folder -> Tower (network, preprocess, what its pooled vector is)

Foreign failures become qle's errors (qle/hub.py). Nothing of a repository is executed: classes come from the library only.
"""

import inspect
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, CLIPVisionModelWithProjection, SiglipVisionModel

from qle.backbones import BackboneRequest
from qle.backbones.preprocess import Preprocess, ResizeMode
from qle.errors import ConfigError
from qle.hub import (
    check_complete,
    failures_as_config_errors,
    hub_options,
    missing_tensors,
    network_options,
    quiet_library,
)

Pooling = Literal["projected", "pooled", "cls"]
"""What the vector of a whole picture is: in the space of texts, or what the model calls pooled, or its CLS token."""

PROJECTING = {
    "clip": CLIPVisionModelWithProjection,
    "clip_vision_model": CLIPVisionModelWithProjection,
    "siglip": SiglipVisionModel,
    "siglip_vision_model": SiglipVisionModel,
}
"""Model types whose image vector lives in the same space as a text vector. SigLIP 2 at fixed resolution is of type siglip."""


MAX_PREFIX = 64
"""CLS and registers; more tokens than this before the patches mean that the tokens are something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """A vision transformer in float32 on the CPU, as the library loads it."""

    network: "TokensAndPooled"
    preprocess: Preprocess
    model_type: str
    """As the library calls it, e.g. "clip_vision_model"."""
    architecture: dict[str, Any]
    """Class, and the settings that change numbers though the tensors stay the same."""
    grid: tuple[int, int]
    """Rows and columns of patches."""
    num_prefix: int
    """Tokens before the first patch: CLS and registers."""
    patch_dim: int
    frame_dim: int


class TokensAndPooled(nn.Module):
    """The library's network reduced to pixels -> (all tokens, pooled vector)."""

    def __init__(self, tower: nn.Module, pooling: Pooling, *, is_stretched: bool) -> None:
        super().__init__()
        self.tower = tower
        self.pooling = pooling
        # DINOv2 stretches its positions unasked and does not know the argument; the others refuse other sizes without it.
        knows_argument = "interpolate_pos_encoding" in inspect.signature(tower.forward).parameters
        self._arguments = {"interpolate_pos_encoding": True} if is_stretched and knows_argument else {}

    def forward(self, pixels: Float[Tensor, "frames 3 height width"]) -> tuple[Tensor, Tensor]:
        output = self.tower(pixel_values=pixels, **self._arguments)
        tokens: Tensor = output.last_hidden_state
        if self.pooling == "cls":
            return tokens, tokens[:, 0]
        pooled: Tensor = output["image_embeds"] if "image_embeds" in output else output["pooler_output"]
        return tokens, pooled


def load_tower(request: BackboneRequest) -> Tower:
    """The tower that `request.name` (or, for the name hf, the folder `request.weights`) stands for."""
    source = _source(request)
    with quiet_library(), failures_as_config_errors(source, "vision model"):
        options = hub_options(source)
        config = AutoConfig.from_pretrained(source, **options)
        processor = AutoImageProcessor.from_pretrained(source, backend="pil", **options)
        network, config, pooling = _network(source, config, options)
    patch_size = getattr(config, "patch_size", None)
    if not isinstance(patch_size, int):
        raise _not_a_transformer(source, f"a {config.model_type} has no square patches")
    preprocess = _preprocess(processor.to_dict(), request, source)
    height, width = preprocess.output_shape
    if height % patch_size or width % patch_size:
        raise ConfigError(f"{source}: image size {height} x {width} is not a multiple of its patch size {patch_size}")
    is_stretched = config.image_size not in (height, [height, width], (height, width))
    wrapped = TokensAndPooled(network, pooling, is_stretched=is_stretched).eval()
    grid = (height // patch_size, width // patch_size)
    num_prefix, patch_dim, frame_dim = _probe(wrapped, preprocess, grid, source)
    return Tower(
        network=wrapped, preprocess=preprocess, model_type=config.model_type, architecture=_architecture(network, config),
        grid=grid, num_prefix=num_prefix, patch_dim=patch_dim, frame_dim=frame_dim,
    )  # fmt: skip


@torch.inference_mode()
def _probe(network: nn.Module, preprocess: Preprocess, grid: tuple[int, int], source: str) -> tuple[int, int, int]:
    """One black picture shows how many tokens stand before the patches, which no config entry says for all models."""
    tokens, pooled = network(torch.zeros(1, 3, *preprocess.output_shape))
    num_prefix = tokens.shape[1] - grid[0] * grid[1] if tokens.ndim == 3 else -1
    if not 0 <= num_prefix <= MAX_PREFIX:
        raise _not_a_transformer(source, f"its tokens {tuple(tokens.shape[1:])} are not {grid[0]} x {grid[1]} patches")
    return num_prefix, tokens.shape[-1], pooled.shape[-1]


def _architecture(network: nn.Module, config: Any) -> dict[str, Any]:
    names = ("num_hidden_layers", "num_attention_heads", "patch_size", "image_size", "hidden_act", "layer_norm_eps")
    return {"class": type(network).__name__} | {name: getattr(config, name, None) for name in names}


def _not_a_transformer(source: str, reason: str) -> ConfigError:
    return ConfigError(f"{source}: {reason}\nchoose a plain vision transformer (CLIP, SigLIP, DINOv2, ViT)")


def _source(request: BackboneRequest) -> str:
    if request.name != "hf":
        if request.weights is not None:
            raise ConfigError(f"{request.name} brings its own weights: drop --weights {request.weights}")
        return request.name
    if request.weights is None:
        raise ConfigError(
            "--backbone hf needs a model folder: pass --weights FOLDER, or name the model itself (--backbone owner/model)"
        )
    return str(request.weights)


def _network(source: str, config: Any, options: dict[str, Any]) -> tuple[nn.Module, Any, Pooling]:
    """Only the vision half is ever built, and every number in it comes from the files."""
    model_class = PROJECTING.get(config.model_type, AutoModel)
    if hasattr(config, "vision_config"):
        if model_class is AutoModel:
            reason = f"image-text models of type {config.model_type} are not supported"
            raise ConfigError(f"{source}: {reason}\nchoose CLIP or SigLIP")
        if model_class is CLIPVisionModelWithProjection:  # the width of the shared space stands beside the two towers
            config.vision_config.projection_dim = config.projection_dim
        config = config.vision_config
    network, report = model_class.from_pretrained(
        source, config=config, dtype=torch.float32, output_loading_info=True, **network_options(options)
    )
    missing = missing_tensors(report)
    missing_pooler = {name for name in missing if name.startswith("pooler.")}
    check_complete(missing - missing_pooler, source)
    if missing_pooler:  # it would be random: it goes, and the CLS token stands in for it
        network.pooler = None
    if model_class is not AutoModel:
        return network, config, "projected"
    return network, config, "cls" if missing_pooler else "pooled"


def _preprocess(settings: dict[str, Any], request: BackboneRequest, source: str) -> Preprocess:
    size, crop = settings.get("size") or {}, settings.get("crop_size") or {}
    resize: ResizeMode
    resize_to: int | None = None
    if settings.get("do_resize", True) and settings.get("do_center_crop") and "shortest_edge" in size:
        resize, resize_to, height, width = (
            "shorter-crop",
            size["shortest_edge"],
            int(crop["height"]),
            int(crop["width"]),
        )
    elif settings.get("do_resize", True) and not settings.get("do_center_crop") and "height" in size:
        resize, height, width = "squash", int(size["height"]), int(size["width"])
    else:
        raise ConfigError(
            f"{source}: its image processor gives pictures of varying size ({size}, crop {crop})\nchoose another model"
        )
    if request.image_size is not None:
        resize_to = resize_to and round(resize_to * request.image_size / max(height, width))
        height = width = request.image_size
    if request.resize is not None and request.resize != resize:
        resize, resize_to = request.resize, None
    is_normalised = settings.get("do_normalize", True)
    return Preprocess(
        height=height,
        width=width,
        resize=resize,
        resize_to=resize_to,
        interpolation=Image.Resampling(settings["resample"]).name.lower(),
        crop_borders=request.crop_borders,
        scale=settings["rescale_factor"] if settings.get("do_rescale", True) else 1.0,
        mean=tuple(settings["image_mean"]) if is_normalised else (0.0, 0.0, 0.0),
        std=tuple(settings["image_std"]) if is_normalised else (1.0, 1.0, 1.0),
    )
