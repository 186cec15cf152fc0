"""One backbone with its space: where a decoded frame goes, and what defines the numbers that it becomes."""

import re
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from qle.backbones.base import Backbone
from qle.cache import leftovers
from qle.cache.layout import SPACE_FILE, space_folder_name, space_hash
from qle.cache.spaces import SpaceFolder, create_space, open_space
from qle.extract.request import TokenOptions
from qle.extract.sampling import Sampling
from qle.extract.tokens import stored_streams
from qle.types import SpaceSpec, Stream

BUILT_IN = "built in"
"""The source of a backbone that is part of qle: there is only one model of its name."""

WEIGHTS_SUFFIXES = {".bin", ".ckpt", ".pt", ".pth", ".safetensors"}

MAX_MODEL_NAME = 40


@dataclass(frozen=True, slots=True, eq=False)  # identity: it is a key of dicts
class Target:
    """A loaded backbone and the folder that its tokens go to."""

    backbone: Backbone
    folder: SpaceFolder
    streams: tuple[Stream, ...]


def make_target(backbone: Backbone, sampling: Sampling, tokens: TokenOptions, root: Path) -> Target:
    """Opens (or creates) the space of this backbone with these options in the cache at `root`."""
    spec = named_as_there(root, space_spec(backbone, sampling, tokens))
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


def named_as_there(root: Path, spec: SpaceSpec) -> SpaceSpec:
    """The same space under the name that it has in this cache already, for one that has another there.

    Names come from what a file of weights is called, and earlier versions gave others; what a space means is its hash.
    """
    for record in sorted(root.glob(f"*-{space_hash(spec.hashed)[:12]}/{SPACE_FILE}")):
        there = replace(spec, name=open_space(record.parent).record.name)
        if space_folder_name(there) == record.parent.name:
            return there
    return spec


def _readable_name(backbone: Backbone, sampling: Sampling, tokens: TokenOptions) -> str:
    kept = tokens.tokens if tokens.grid is None else f"grid{tokens.grid}"
    return "-".join([_model_name(backbone), sampling.label, backbone.context.mode, kept, tokens.dtype])


def _model_name(backbone: Backbone) -> str:
    """`clip-vit-base-patch16-3fa2c1`: the family, the model in it and the weights, so that no two models share a name.

    The model is called as its id, folder or file is. The digits begin the digest of its weights: they are the same in all
    spaces of one checkpoint, and two that lie in files of one name still differ.
    """
    source = Path(str(backbone.recorded().get("source", BUILT_IN)))
    if str(source) == BUILT_IN:
        return backbone.name
    stem = source.stem if source.suffix in WEIGHTS_SUFFIXES else source.name
    words = re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[:MAX_MODEL_NAME].strip("-")
    parts = [backbone.name, words] if backbone.name not in words.lower() else [words]
    return "-".join([part for part in parts if part] + [str(backbone.provenance()["weights"])[:6]])
