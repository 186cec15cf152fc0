"""Any vision transformer that the transformers library knows: CLIP, SigLIP, DINOv2, ViT, by id or local folder.

    frames uint8 (batch, 1, H, W, 3) -> patch (batch, 1, rows, cols, dim), frame (batch, 1, dim')

Patches are the last hidden state without CLS and register tokens (CLIP applies its last LayerNorm to the pooled vector only, so
its patches are taken before it). `frame` of an image-text model is the projected image embedding, not scaled to unit length:
its cosine with a text embedding of the same model means something. Of other models it is what they call pooled, else CLS.
"""

from typing import Any

import torch
import transformers
from jaxtyping import Float, UInt8
from torch import Tensor

from qle.backbones import BackboneRequest, source_of
from qle.backbones.base import SINGLE, Backbone, check_frames, compiled, machine_facts, refuse_clips
from qle.backbones.hf_load import Tower, load_tower
from qle.runtime import resolve_device, resolve_dtype
from qle.types import Stream
from qle.weights import state_digest


class HuggingFaceBackbone(Backbone):
    """One picture at a time through a published vision tower, with that model's own preprocessing."""

    def __init__(self, tower: Tower, request: BackboneRequest) -> None:
        self.name = tower.model_type.replace("_", "-").removesuffix("-vision-model")
        self.preprocess = tower.preprocess
        self.context = SINGLE
        self.streams = (
            Stream(
                name="patch", row_shape=(*tower.grid, tower.patch_dim), axes=("rows", "cols", "dim"), dtype="float32"
            ),
            Stream(name="frame", row_shape=(tower.frame_dim,), axes=("dim",), dtype="float32"),
        )
        self.device = resolve_device(request.device)
        self.compute_dtype = resolve_dtype(request.compute_dtype, self.device)
        self._num_prefix = tower.num_prefix
        self._provenance = {
            "id": f"hf-{self.name}",
            "architecture": tower.architecture,
            "weights": state_digest(tower.network.tower.state_dict()),
            "layer": "last_hidden_state",
            "frame": tower.network.pooling,
        }
        self._recorded = {"source": source_of(request), "compile": request.compile}
        network = tower.network.to(device=self.device, dtype=self.compute_dtype).requires_grad_(requires_grad=False)
        self._network = compiled(network, self.device) if request.compile else network

    @classmethod
    def build(cls, request: BackboneRequest) -> "HuggingFaceBackbone":
        refuse_clips(request, request.name)
        return cls(load_tower(request), request)

    @torch.inference_mode()
    def encode(self, frames: UInt8[Tensor, "batch time height width 3"]) -> dict[str, Float[Tensor, "batch time *row"]]:
        check_frames(frames, self.preprocess)
        pixels = self.preprocess.normalise(frames.to(self.device).flatten(0, 1), dtype=self.compute_dtype)
        tokens, pooled = self._network(pixels)
        lead = frames.shape[:2]
        patch = tokens[:, self._num_prefix :].float()
        return {"patch": patch.reshape(*lead, *self.streams[0].row_shape), "frame": pooled.float().reshape(*lead, -1)}

    def provenance(self) -> dict[str, Any]:
        return dict(self._provenance)

    def recorded(self) -> dict[str, Any]:
        return self._recorded | machine_facts(self) | {"transformers": transformers.__version__}
