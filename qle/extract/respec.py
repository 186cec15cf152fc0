"""The description of a space, read backwards: what has to be done to a new video so that its numbers mean the same.

    hashed part of a space (in a run's config.json) + weights file --recipe_of--> Recipe: backbone, sampling, tokens

A run knows the space that it was trained on by its whole description. Here that becomes the very request that made it, and
before a frame is decoded the request is checked by the hash of the space that it would make: a recipe that exists is right.
Weights that nobody names are looked for where the space was made from; that they are the same is again the hash's to say.
Spaces that `qle cache convert` derived name only the hash of the one before them; it is found by trying its few options.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from qle.backbones import BackboneRequest, build_backbone
from qle.backbones.base import Backbone
from qle.backbones.m2crl_files import read_encoder
from qle.cache.differences import different, listed
from qle.cache.layout import space_hash
from qle.errors import CacheMismatchError, CheckpointError, ConfigError
from qle.extract.request import TokenOptions
from qle.extract.sampling import Sampling
from qle.extract.target import space_spec
from qle.types import SpaceSpec, StoreDtype

EXTRACTED = ("backbone", "preprocess", "sampling", "context", "tokens")
"""Parts of the description that only `qle extract` writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a video comes into a space."""

    backbone: Backbone
    """Loaded, on its device."""
    sampling: Sampling
    tokens: TokenOptions
    extracted: SpaceSpec
    """What extraction makes."""
    is_derived: bool
    """Whether the wanted space is one with another dtype or grid that is made from the extracted one."""


def recipe_of(
    name: str, hashed: Mapping[str, Any], *, weights: str | None, device: str, recorded: str | None = None
) -> Recipe:
    """The recipe of a space, proven by its hash; CacheMismatchError with what differs where there is none.

    `weights`: file or folder (or Hugging Face id) of the backbone, for those that have no weights built in.
    `recorded`: where it was when the space was made, which is looked at where `weights` is None.
    """
    check_extracted(name, hashed)
    try:
        asked = backbone_request(hashed, weights=weights, device=device, recorded=recorded)
        sampling = Sampling(**hashed["sampling"])
    except (KeyError, TypeError) as error:
        raise CacheMismatchError(
            f"the description of the space {name} in the run is damaged, or of another version of qle ({error})\n"
            "restore the config.json of the run from a copy, or install the version that trained it"
        ) from error
    backbone = build_backbone(asked)
    is_derived = "derived_from" in hashed
    wanted = hashed["derived_from"] if is_derived else space_hash(hashed)
    specs = [(tokens, space_spec(backbone, sampling, tokens)) for tokens in _token_options(hashed, backbone)]
    for tokens, spec in specs:
        if space_hash(spec.hashed) == wanted:
            return Recipe(
                backbone=backbone, sampling=sampling, tokens=tokens, extracted=spec, is_derived=is_derived
            )  # fmt: skip
    raise _mismatch(name, hashed, specs[0][1], is_derived=is_derived, looked=recorded if weights is None else None)


def check_extracted(name: str, hashed: Mapping[str, Any]) -> None:
    """CacheMismatchError for a space of imported features, which nobody here can make of a film."""
    missing = [part for part in EXTRACTED if not isinstance(hashed.get(part), Mapping)]
    if missing:
        raise CacheMismatchError(
            f"the space {name} was not extracted by qle (its description has no {', '.join(missing)})\n"
            "bring the features of new videos into its cache by qle cache import, and use --cache"
        )


def backbone_request(
    hashed: Mapping[str, Any], *, weights: str | None, device: str, recorded: str | None = None
) -> BackboneRequest:
    """What the user of `qle extract` must have asked for, as far as the description tells."""
    described, preprocess = hashed["backbone"], hashed["preprocess"]
    identity = str(described.get("id"))
    is_square = preprocess["height"] == preprocess["width"]
    common: dict[str, Any] = {
        "resize": preprocess["resize"],
        "crop_borders": preprocess["crop_borders"],
        "image_size": preprocess["height"] if is_square else None,
        "device": device,
    }
    if identity == "tiny":
        return BackboneRequest(name="tiny", weights=None if weights is None else Path(weights), **common)
    if identity not in ("m2crl", "m2crl-2d") and not identity.startswith("hf-"):
        raise CacheMismatchError(f"backbone {identity!r} is unknown to this qle: install the version that extracted it")
    weights = weights or _where_it_was(identity, str(described.get("weights")), recorded)
    if identity.startswith("hf-"):
        folder = Path(weights)
        return BackboneRequest(
            name="hf" if folder.is_dir() else weights, weights=folder if folder.is_dir() else None, **common
        )  # fmt: skip
    num_heads = described["architecture"]["num_heads"]
    entry: Any = _m2crl_entry(Path(weights), str(described.get("weights")), num_heads)
    context = hashed["context"]["mode"]
    return BackboneRequest(
        name="m2crl", weights=Path(weights), weights_entry=entry, num_heads=num_heads, context=context, **common
    )


def _where_it_was(identity: str, digest: str, recorded: str | None) -> str:
    """The file, folder or id that was recorded, if it is still there; ConfigError with where was looked."""
    is_id = identity.startswith("hf-") and recorded is not None and not Path(recorded).is_absolute()
    if recorded is not None and (is_id or Path(recorded).exists()):
        return recorded
    looked = "" if recorded is None else f", which is not at {recorded} any more"
    raise ConfigError(
        f"a new video needs the backbone {identity} of the run{looked}: pass its file or folder by --weights\n"
        f"its tensors must have the digest {digest[:16]}...; cached videos need none: --cache"
    )


def _m2crl_entry(path: Path, digest: str, num_heads: int) -> str | None:
    """Which network of a training file it was; None where none of them is, which the hash then says."""
    for entry in (None, "student", "teacher"):
        try:
            if read_encoder(path, entry=entry, num_heads=num_heads).digest == digest:
                return entry
        except CheckpointError:
            if entry is None:  # no encoder in it at all; the others only say that there is one network
                raise
    return None


def _token_options(hashed: Mapping[str, Any], backbone: Backbone) -> Iterator[TokenOptions]:
    """Those of the description; for a derived space then every other one that it may have been made from."""
    tokens = hashed["tokens"]
    grid, dtype = tokens["grid"], tokens["dtype"]
    if "derived_from" not in hashed:
        yield TokenOptions(tokens=tokens["kept"], grid=grid, dtype=dtype)
        return
    sides = [min(stream.row_shape[:2]) for stream in backbone.streams if stream.name == "patch"]
    grids = [None, *range(1, max(sides, default=0) + 1)] if tokens["kept"] == "patch" else [None]
    for other_grid in grids:
        for other_dtype in get_args(StoreDtype):
            if tokens["kept"] == "patch" or other_dtype != "int8":
                yield TokenOptions(tokens=tokens["kept"], grid=other_grid, dtype=other_dtype)


def _mismatch(
    name: str, hashed: Mapping[str, Any], made: SpaceSpec, *, is_derived: bool, looked: str | None
) -> CacheMismatchError:
    rest = ("tokens", "streams", "derived_from") if is_derived else ()
    theirs, ours = ({key: value for key, value in side.items() if key not in rest} for side in (hashed, made.hashed))
    differences = listed(different(theirs, ours), "run", "here")
    reason = differences or "the space that it was derived from cannot be told: it was converted more than once"
    now = f"another model lies at {looked} now: " if looked is not None and Path(looked).exists() else ""
    return CacheMismatchError(
        f"a new video cannot be extracted as the space {name} of the run was\n{reason}\n"
        f"{now}pass the --weights that were used then, or extract the video into that space and use --cache"
    )
