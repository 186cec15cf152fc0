"""One backbone with its space: where a decoded frame goes, and what defines the numbers that it becomes."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from qle.backbones.base import Backbone
from qle.cache import leftovers
from qle.cache.spaces import SpaceFolder, create_space
from qle.extract.request import TokenOptions
from qle.extract.sampling import Sampling
from qle.extract.tokens import stored_streams
from qle.types import SpaceSpec, Stream


@dataclass(frozen=True, slots=True, eq=False)  # identity: it is a key of dicts
class Target:
    """A loaded backbone and the folder that its tokens go to."""

    backbone: Backbone
    folder: SpaceFolder
    streams: tuple[Stream, ...]


def make_target(backbone: Backbone, sampling: Sampling, tokens: TokenOptions, root: Path) -> Target:
    """Opens (or creates) the space of this backbone with these options in the cache at `root`."""
    spec = space_spec(backbone, sampling, tokens)
    space = create_space(root, spec)
    leftovers.clear(space.path)
    return Target(backbone, space, spec.streams)


def space_spec(backbone: Backbone, sampling: Sampling, tokens: TokenOptions) -> SpaceSpec:
    """Everything that changes a stored number is in `hashed`; what should not change one is in `recorded`."""
    streams = stored_streams(backbone.streams, tokens)
    context = backbone.context
    hashed = {
        "backbone": backbone.provenance(),
        "preprocess": backbone.preprocess.to_dict(),
        "sampling": sampling.to_dict(),
        "context": {
            "mode": context.mode,
            "length": context.length,
            "step": context.step,
            "short_video": "repeat last row",
        },
        "tokens": {"kept": tokens.tokens, "grid": tokens.grid, "dtype": tokens.dtype},
        "streams": [
            {"name": stream.name, "row_shape": list(stream.row_shape), "dtype": stream.dtype} for stream in streams
        ],
    }
    recorded = backbone.recorded() | {
        "versions": {package: version(package) for package in ("qle", "torch", "transformers", "numpy", "av", "pillow")}
    }
    return SpaceSpec(name=_readable_name(backbone, sampling, tokens), hashed=hashed, streams=streams, recorded=recorded)


def _readable_name(backbone: Backbone, sampling: Sampling, tokens: TokenOptions) -> str:
    kept = tokens.tokens if tokens.grid is None else f"grid{tokens.grid}"
    return "-".join([backbone.name, sampling.label, backbone.context.mode, kept, tokens.dtype])
