"""Whether a backbone will work on this machine, found by using it: loaded as `qle extract` would, then one clip of noise.

    what a user typed -> as_request -> BackboneRequest -> try_backbone -> Trial (streams, picture, seconds), or a QleError

No video is decoded and nothing is written, except what the library downloads for the id of a model that is not here yet.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from qle.backbones import BackboneRequest, build_backbone
from qle.errors import ConfigError, QleError
from qle.types import ClipContext, Stream

MODEL_FILES = {
    "config.json": ("config.json",),
    "preprocessor_config.json": ("preprocessor_config.json", "processor_config.json"),
    "model.safetensors": ("*.safetensors", "pytorch_model*.bin"),
}
"""What the folder of a Hugging Face model must hold -> the names and patterns under which it may lie there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneTrial:
    """A backbone that was loaded and has encoded one clip."""

    name: str
    """As it stands in the names of its spaces."""
    streams: tuple[Stream, ...]
    """What it gives for one row, at native size."""
    picture: tuple[int, int]
    """Height and width of what it sees, in pixels."""
    context: ClipContext
    device: str
    compute_dtype: str
    load_s: float
    forward_s: float
    """Seconds for one clip, the first one."""


def as_request(asked: str, device: str = "auto") -> BackboneRequest:
    """What a name, the id of a model, a folder or a checkpoint file stands for; a file is one that m2crl reads."""
    if Path(asked).is_file():
        return BackboneRequest(name="m2crl", weights=Path(asked), device=device)
    return BackboneRequest(name=asked, device=device)


def missing_files(folder: Path) -> list[str]:
    """What the folder of a Hugging Face model lacks, by the usual names of these files."""
    return [
        name
        for name, patterns in MODEL_FILES.items()
        if not any(path for pattern in patterns for path in folder.glob(pattern))
    ]


def try_backbone(request: BackboneRequest) -> BackboneTrial:
    """Load and use it; a QleError says why it will not work."""
    started_s = time.perf_counter()
    try:
        backbone = build_backbone(request)
    except ImportError as error:
        raise ConfigError(f"{request.name}: a package is missing ({error})\npip install {error.name}") from error
    loaded_s = time.perf_counter()
    shape = (1, backbone.context.length, *backbone.preprocess.output_shape, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    try:
        rows = backbone.encode(frames)
    except (RuntimeError, MemoryError) as error:  # what torch calls a device that is too small or does not know a layer
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise QleError(
            f"{request.name}: loaded, but one clip cannot be encoded on {backbone.device}: {reason}"
        ) from error
    for stream in backbone.streams:
        if not bool(torch.isfinite(rows[stream.name]).all()):
            raise QleError(
                f"{request.name}: its {stream.name} stream holds numbers that are not finite in {backbone.compute_dtype}\n"
                "pass --compute-dtype float32; where that does not help, the weights are damaged: fetch them again"
            )
    return BackboneTrial(
        name=backbone.name, streams=backbone.streams, picture=backbone.preprocess.output_shape, context=backbone.context,
        device=str(backbone.device), compute_dtype=str(backbone.compute_dtype).removeprefix("torch."),
        load_s=loaded_s - started_s, forward_s=time.perf_counter() - loaded_s,
    )  # fmt: skip
