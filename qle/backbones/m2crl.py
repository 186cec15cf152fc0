"""M2CRL: the divided space-time video transformer of endoscopy pre-training (Endo-FM, SVT and TimeSformer are the same network).

    clips uint8 (batch, time, H, W, 3) -> patch (batch, time, H/16, W/16, width), frame (their mean), clip (the CLS token)

"Multi-view Masked Contrastive Representation Learning for Endoscopic Video Analysis", NeurIPS 2024. A block attends over time
(each patch place by itself, then a linear layer), over space (each frame with a copy of the clip's one CLS token, whose results
are averaged over the frames), then an MLP. Deviations, none of which changes a number beyond rounding:

- tokens lie frame by frame with the CLS copy in slot 0 of every frame. The copies stay equal, which costs 1/197 of the MLP
  and saves every concatenation; official code keeps time fastest and reorders twice a block;
- `temporal_fc` is folded into the projection before it when the weights are loaded.
"""

from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from qle.backbones import BackboneRequest, source_of
from qle.backbones.base import Backbone, check_frames, compiled, machine_facts
from qle.backbones.m2crl_files import EncoderFile, M2crlConfig, fold_temporal, read_encoder
from qle.backbones.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from qle.backbones.vit import VitAttention, VitMlp
from qle.errors import ConfigError
from qle.runtime import resolve_device, resolve_dtype
from qle.types import ClipContext, Stream
from qle.weights import load_exactly

NORM_EPS = 1e-6
TIMESFORMER_LAYOUT = "model_state/model."
"""TimeSformer was trained with grey mean and std; everything else in this family with ImageNet's."""


class M2crlBackbone(Backbone):
    """The encoder behind --backbone m2crl: streams `patch`, `frame` (mean of the patches) and `clip` (CLS of the clip,
    repeated for each of its rows)."""

    def __init__(self, encoder: EncoderFile, request: BackboneRequest) -> None:
        config = encoder.config
        self.name = "m2crl"
        self.preprocess = _preprocess(encoder, request)
        self.context = ClipContext.of(request.context or "centre", config.num_frames)
        self.streams = _streams(config, self.preprocess)
        self.device = resolve_device(request.device)
        self.compute_dtype = resolve_dtype(request.compute_dtype, self.device)
        self._patch_size = config.patch_size
        self._provenance = {
            "id": "m2crl" if encoder.is_video else "m2crl-2d",
            "architecture": {"kind": "divided space-time ViT", **asdict(config)},
            "weights": encoder.digest,
            "layer": "last",
            "final_norm": True,
            "embedding_interpolation": "nearest",
        }
        self._recorded = {"source": source_of(request), "layout": encoder.layout, "compile": request.compile}
        with torch.device("meta"):  # no memory, no time spent on initial numbers that are overwritten
            network = M2crlNetwork(config)
        network.to(dtype=self.compute_dtype).to_empty(device=self.device)
        load_exactly(network, fold_temporal(encoder.state, config.depth), where=str(request.weights))
        network.eval().requires_grad_(requires_grad=False)
        self._network = compiled(network, self.device) if request.compile else network

    @classmethod
    def build(cls, request: BackboneRequest) -> "M2crlBackbone":
        if request.weights is None:
            raise ConfigError(
                "m2crl needs its pre-trained weights: pass --weights FILE\n"
                "the official M2CRL pre-training file, endo_fm.pth of Endo-FM, kinetics400_vitb_ssl.pth of SVT, a TimeSformer\n"
                "checkpoint or dino_vitbase16_pretrain.pth; without any of them try --backbone tiny"
            )
        encoder = read_encoder(request.weights, entry=request.weights_entry, num_heads=request.num_heads)
        return cls(encoder, request)

    @torch.inference_mode()
    def encode(self, frames: UInt8[Tensor, "batch time height width 3"]) -> dict[str, Float[Tensor, "batch time *row"]]:
        check_frames(frames, self.preprocess)
        clips = self.preprocess.normalise(frames.to(self.device), dtype=self.compute_dtype)
        return self.encode_normalised(clips)

    @torch.inference_mode()
    def encode_normalised(
        self, clips: Float[Tensor, "batch time 3 height width"]
    ) -> dict[str, Float[Tensor, "batch time *row"]]:
        """`encode` behind its normalisation; height and width may be any multiples of the patch size, time any number."""
        tokens = self._network(clips).float()
        patch = tokens[:, :, 1:]
        return {
            "patch": patch.unflatten(2, (clips.shape[3] // self._patch_size, -1)),
            "frame": patch.mean(dim=2),
            "clip": tokens[:, :, 0],  # equal in every frame of the clip
        }

    def provenance(self) -> dict[str, Any]:
        return dict(self._provenance)

    def recorded(self) -> dict[str, Any]:
        return self._recorded | machine_facts(self)


class M2crlNetwork(nn.Module):
    """Normalised clips to tokens (batch, time, 1 + patches, width) after the last LayerNorm; slot 0 is the clip's CLS."""

    def __init__(self, config: M2crlConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + config.grid**2, width))
        self.time_embed = nn.Parameter(torch.empty(1, config.num_frames, width))
        self.patch_embed = _PatchEmbed(width, config.patch_size)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, clips: Float[Tensor, "batch time 3 height width"]) -> Float[Tensor, "batch time 1+patches width"]:
        batch, time, _, height, width = clips.shape
        patches = self.patch_embed(clips.flatten(0, 1)).unflatten(0, (batch, time))
        cls = self.cls_token.expand(batch, time, 1, -1)
        rows, cols = height // self.config.patch_size, width // self.config.patch_size
        tokens = torch.cat([cls, patches], dim=2) + self._embedding(time, rows, cols)
        for block in self.blocks:
            tokens = block(tokens)
        normed: Tensor = self.norm(tokens)
        return normed

    def _embedding(self, time: int, rows: int, cols: int) -> Float[Tensor, "time 1+patches width"]:
        """Position and time, both stretched to this input by nearest neighbour as official code does; none of the time
        part for CLS."""
        grid, cells = self.config.grid, self.pos_embed[0, 1:]
        if (rows, cols) != (grid, grid):
            picture = cells.T.reshape(1, -1, grid, grid)
            cells = F.interpolate(picture, size=(rows, cols), mode="nearest")[0].flatten(1).T
        moments = self.time_embed[0]
        if time != self.config.num_frames:
            moments = F.interpolate(moments.T[None], size=time, mode="nearest")[0].T
        cls = self.pos_embed[0, :1].expand(time, 1, -1)
        return torch.cat([cls, cells[None] + moments[:, None]], dim=1)


class _PatchEmbed(nn.Module):
    """A linear map of each square of pixels; places in row-major order."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, stride=patch_size)

    def forward(self, frames: Float[Tensor, "frames 3 height width"]) -> Float[Tensor, "frames patches width"]:
        embedded: Tensor = self.proj(frames)
        return embedded.flatten(2).transpose(1, 2)


class _Block(nn.Module):
    """Time, space, MLP. Adds into its input, which the caller gives up."""

    def __init__(self, config: M2crlConfig) -> None:
        super().__init__()
        self.temporal_norm1 = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.temporal_attn = VitAttention(config.width, config.num_heads)
        self.norm1 = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.attn = VitAttention(config.width, config.num_heads)
        self.norm2 = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.mlp = VitMlp(config.width, config.mlp_width)

    def forward(
        self, tokens: Float[Tensor, "batch time 1+patches width"]
    ) -> Float[Tensor, "batch time 1+patches width"]:
        batch, time, _, _ = tokens.shape
        # Time: one sequence for each patch place. CLS takes no part. This is the one reordering of a block; left as a view
        # it would turn the linear layer into a batched product with a copy of the weights for each sequence.
        moving = self.temporal_norm1(tokens)[:, :, 1:].transpose(1, 2).flatten(0, 1).contiguous()
        moved = self.temporal_attn(moving).unflatten(0, (batch, -1)).transpose(1, 2)
        tokens[:, :, 1:] += moved
        # Space: one sequence for each frame; CLS gets the mean of what its copies were told.
        seen = self.attn(self.norm1(tokens).flatten(0, 1)).unflatten(0, (batch, time))
        seen[:, :, 0] = seen[:, :, 0].mean(dim=1, keepdim=True)
        tokens += seen
        tokens += self.mlp(self.norm2(tokens))
        return tokens


def _preprocess(encoder: EncoderFile, request: BackboneRequest) -> Preprocess:
    side = request.image_size or encoder.config.image_size
    if side < 1 or side % encoder.config.patch_size:
        raise ConfigError(
            f"image size {side} is not a multiple of the patch size {encoder.config.patch_size} of these weights"
        )
    is_grey = encoder.layout.startswith(TIMESFORMER_LAYOUT)
    return Preprocess(
        height=side,
        width=side,
        resize=request.resize or "squash",  # surgical pictures carry instruments at their borders: cut nothing off
        interpolation="bicubic",
        crop_borders=request.crop_borders,
        mean=(0.45, 0.45, 0.45) if is_grey else IMAGENET_MEAN,
        std=(0.225, 0.225, 0.225) if is_grey else IMAGENET_STD,
    )


def _streams(config: M2crlConfig, preprocess: Preprocess) -> tuple[Stream, ...]:
    grid = (preprocess.height // config.patch_size, preprocess.width // config.patch_size)
    return (
        Stream(name="patch", row_shape=(*grid, config.width), axes=("rows", "cols", "dim"), dtype="float32"),
        Stream(name="frame", row_shape=(config.width,), axes=("dim",), dtype="float32"),
        Stream(name="clip", row_shape=(config.width,), axes=("dim",), dtype="float32"),
    )
