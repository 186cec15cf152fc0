"""Everything that a user may ask of `qle extract`, in one value that crosses process borders. No torch: usage errors are fast."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qle.backbones import BackboneRequest
from qle.errors import ConfigError
from qle.extract.decode.decoder import DECODERS
from qle.extract.sampling import Sampling
from qle.runtime import num_cores
from qle.types import StoreDtype, StoreKind

MOST_WORKERS = 32
"""Decode processes of a device that any machine may have; more only where it has the cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOptions:
    """Which tokens are kept, and how exactly."""

    tokens: Literal["patch", "frame"] = "patch"
    """patch: the whole map beside the pooled vectors. frame: pooled vectors only."""
    grid: int | None = None
    """Mean-pool the patch map to grid x grid."""
    dtype: StoreDtype = "float16"
    """Stored type of the patch map. int8 has one scale per token; pooled vectors stay float16 beside it."""

    def __post_init__(self) -> None:
        if self.tokens == "frame" and self.grid is not None:
            raise ConfigError("--grid pools the patch map, which --tokens frame does not keep: drop one of the two")
        if self.tokens == "frame" and self.dtype == "int8":
            raise ConfigError("--dtype int8 is for patch tokens: use float16 with --tokens frame")
        if self.grid is not None and self.grid < 1:
            raise ConfigError(f"--grid {self.grid}: expected 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractRequest:
    """What to extract, with which backbones, into which cache, on what."""

    inputs: tuple[str, ...]
    """Folders, globs, manifests, files."""
    cache: Path
    backbones: tuple[BackboneRequest, ...]
    """Their device is set for each process; what stands there is ignored."""
    sampling: Sampling
    tokens: TokenOptions
    devices: tuple[str, ...] = ("auto",)
    """One process for each; "cpu" twice means two processes on the CPU."""
    root: Path | None = None
    """What keys are relative to."""
    store: StoreKind = "zarr"
    decoder: str = "auto"
    num_workers: int | None = None
    """Decode processes for each device; None chooses by the cores of this machine."""
    batch_frames: int | None = None
    """Frames in a forward pass; None chooses by the device."""
    limit: int | None = None
    """Only the first so many videos, in the order of their keys."""
    retry_failed: bool = False
    durability: Literal["full", "none"] = "full"
    """none: no fsync; a power cut may then damage what was reported as done (verify finds it)."""
    keep_partial: bool = False
    """Commit what is there of a file that broke off, marked as such; else it fails."""
    keep_damaged: bool = False
    """Count rows of frames that the decoder calls damaged as valid; they are marked either way."""
    stall_limit_s: float = 120.0

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ConfigError("nothing to extract: name a folder, a glob, a manifest.csv or video files")
        if not self.backbones:
            raise ConfigError("no backbone: pass --backbone tiny, m2crl, or the id or folder of a Hugging Face model")
        if not self.devices:
            raise ConfigError("no device: pass --device cpu or --gpus 0,1")
        if self.decoder not in ("auto", *DECODERS) and ":" not in self.decoder:
            raise ConfigError(f"--decoder {self.decoder}: choose one of auto, {', '.join(sorted(DECODERS))}")
        for name, value in (("workers", self.num_workers), ("batch", self.batch_frames), ("limit", self.limit)):
            if value is not None and value < 1:
                raise ConfigError(f"--{name} {value}: expected 1 or more")
        if self.num_workers is not None and self.num_workers > (most := max(MOST_WORKERS, 4 * num_cores())):
            raise ConfigError(
                f"--workers {self.num_workers}: expected at most {most} on this machine of {num_cores()} cores\n"
                "each is a process that decodes one video; more than there are cores make nothing faster"
            )
        if not 0 < self.stall_limit_s < math.inf:  # also refuses nan
            raise ConfigError(f"--decode-timeout {self.stall_limit_s}: expected seconds above 0")
