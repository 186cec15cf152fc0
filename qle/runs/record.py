"""A run: a folder that holds a trained head and everything that is needed to use it, and nothing from anywhere else.

    config.json         RunRecord: head, text encoder, space, constants of localization; written last
    model.safetensors   every tensor of the head
    text.safetensors    the trained tensors of the text encoder (all of `tiny`, the LoRA adapter of others), if there are any
    known.safetensors   a sentence vector of every distinct training text, where the text encoder can tell words from nonsense
    metrics.json        what validation said about the saved weights
    environment.json    versions, device, number of processes
    settings.json       what was asked for: written first, so that a training that was killed is known and can go on
    history.jsonl  tensorboard/  checkpoints/ (while training)

A folder without config.json is not a run yet, whatever else is in it. The digest of the weights stands in the record, and at
its end one of itself, as in metrics.json, environment.json and settings.json: a file of another run, or a flipped bit, is an
error and not a head that finds nothing.
"""

import platform
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from qle.cache.differences import different, listed
from qle.cache.reader import Space
from qle.data.streams.recipe import FeatureRecipe
from qle.durable import fits_digest, replace_file, with_digest
from qle.errors import CacheMismatchError, CheckpointError, ConfigError
from qle.inputs import parse_json, read_record_bytes
from qle.outputs import strict_json
from qle.segments.ranked import Ranking
from qle.segments.tracks import Localization
from qle.types import TIME_STREAMS

if TYPE_CHECKING:
    from torch import Tensor

    from qle.heads.base import Head, TokenShapes
    from qle.text.known import KnownTexts

FORMAT = 1
CONFIG_FILE, SETTINGS_FILE = "config.json", "settings.json"
MODEL_FILE, TEXT_FILE, KNOWN_FILE = "model.safetensors", "text.safetensors", "known.safetensors"
METRICS_FILE, ENVIRONMENT_FILE, HISTORY_FILE = "metrics.json", "environment.json", "history.jsonl"
CHECKPOINTS, TENSORBOARD = "checkpoints", "tensorboard"


RunState = Literal["new", "unfinished", "finished"]


class SpaceUse(BaseModel):
    """The space that the head was trained on, and how."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    hash: str
    hashed: dict[str, Any]
    """What its numbers mean: enough to extract a new video in the same way."""
    streams: dict[str, tuple[int, ...]]
    """Row shape of every token stream."""
    rate_fps: float | None
    """Rows per second that the head was trained at; None: every cached row."""
    backbone_source: str | None = None
    """File or folder of the backbone where it lay when the space was made, or the id of a published one. None: it is built
    in, not known (imported features), or the run was trained by a version that did not keep it."""


class KnownLimit(BaseModel):
    """Constants of `KnownTexts`, whose vectors stand in known.safetensors."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    limit: float
    slope: float


class RunRecord(BaseModel):
    """config.json."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    format: int = FORMAT
    head: str
    """Its name in HEADS."""
    head_config: dict[str, Any]
    text: dict[str, Any]
    """What `TextEncoder.spec()` said of the text encoder."""
    text_dim: int
    sentence_dim: int
    space: SpaceUse
    """The first one, where features of several are joined."""
    more_spaces: tuple[SpaceUse, ...] = ()
    """The others, in the order of the recipe."""
    recipe: FeatureRecipe | None = None
    """How features are made of the spaces, for heads that read joined clips or frame vectors (then of one part)."""
    localization: Localization = Localization()
    """Constants of heads that score rows; not written for others. They and `ranking` stand here and not in `constants`, where
    newer tasks keep theirs, because runs of every version so far have them in this place."""
    ranking: Ranking | None = None
    """Constants of heads that answer with spans."""
    constants: dict[str, Any] = {}
    """Constants that a task of another kind has fitted, by name; JSON that its own folder reads."""
    known: KnownLimit | None = None
    """How far from its training texts its knowledge reaches; None in runs that do not know."""
    is_calibrated: bool = True
    """Its constants were fitted on validation videos; those of imported weights are as good as any."""
    priors: dict[str, Any] | None
    """What can be guessed without looking (eval/floors.py), from the training annotations."""
    settings: dict[str, Any]
    """Everything that was asked for, data and training included."""
    selection: dict[str, Any]
    """Which step was kept, by which number."""
    digests: dict[str, str] = {}
    """sha256 over the tensors of each weights file."""
    versions: dict[str, str]
    created: datetime

    @property
    def rate_fps(self) -> float | None:
        return self.space.rate_fps

    @property
    def spaces(self) -> tuple[SpaceUse, ...]:
        """All of them."""
        return (self.space, *self.more_spaces)

    @property
    def token_shapes(self) -> "TokenShapes":
        """What the head was built for; ConfigError where there is no such head."""
        from qle.heads import head_class
        from qle.heads.base import TokenShapes

        streams: Mapping[str, tuple[int, ...]] = self.space.streams
        if self.recipe is not None:  # one vector a clip or frame, under the name by which such heads ask for it
            streams = dict.fromkeys(head_class(self.head).streams, (self.recipe.dim,))
        return TokenShapes(streams=dict(streams), text_dim=self.text_dim, sentence_dim=self.sentence_dim)


def run_state(folder: Path) -> RunState:
    """What stands there; CheckpointError for a folder that holds something else."""
    if (folder / CONFIG_FILE).exists():
        return "finished"
    if (folder / SETTINGS_FILE).exists():
        return "unfinished"
    if folder.exists() and (not folder.is_dir() or any(not path.name.startswith(".") for path in folder.iterdir())):
        raise CheckpointError(
            f"{folder}: neither empty nor a run (it has no {SETTINGS_FILE})\ngive another --out folder"
        )
    return "new"


def read_run(folder: Path) -> RunRecord:
    """The record alone: no weights are read and no torch is imported."""
    path = folder / CONFIG_FILE
    try:
        content = read_record_bytes(path)
    except OSError as error:
        raise _no_run(folder, error) from error
    if not fits_digest(content):
        raise CheckpointError(
            f"{path} is not as it was written: its digest does not fit its {len(content)} bytes\n"
            'restore it from a copy; if it was changed on purpose, take the last field, "digest", out of it'
        )
    try:
        fields = parse_json(content)
        if isinstance(fields, dict) and isinstance(fields.get("format"), int) and fields["format"] > FORMAT:
            raise CheckpointError(
                f"{path} has format {fields['format']}, this qle reads format {FORMAT}\ninstall a newer qle to use the run"
            )
        return RunRecord.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(f"{path} is no record of a run: {field}: {first['msg']}") from error
    except ConfigError as error:  # of the constants of localization, which the record checks as it is made
        raise CheckpointError(f"{path} is no record of a run: {error}") from error
    except ValueError as error:
        raise CheckpointError(
            f"{path} is no JSON ({len(content)} bytes)\nrestore it from a copy, or train again"
        ) from error


def save_run(
    folder: Path, record: RunRecord, head: "Head", text_state: Mapping[str, "Tensor"], files: Mapping[str, Any],
    known: "KnownTexts | None" = None,
) -> RunRecord:  # fmt: skip
    """Write everything, the record last. `files`: JSON values by file name. The record with its digests comes back."""
    from safetensors.torch import save

    from qle.text.known import SENTENCES
    from qle.weights import state_digest

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder}: the folder cannot be made ({error.strerror})\ngive another --out") from error
    digests = {}
    known_state = {} if known is None else {SENTENCES: known.sentences}
    for name, state in ((MODEL_FILE, head.state_dict()), (TEXT_FILE, text_state), (KNOWN_FILE, known_state)):
        if state:
            tensors = {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}
            replace_file(folder / name, save(tensors, metadata={"format": "pt"}))
            digests[name] = state_digest(tensors)
    for name, value in files.items():
        write_sealed(folder / name, value)
    limit = None if known is None else KnownLimit(limit=known.limit, slope=known.slope)
    record = record.model_copy(update={"digests": digests, "known": limit})
    unsaid = {"localization"} - record.model_fields_set
    replace_file(folder / CONFIG_FILE, with_digest(record.model_dump_json(indent=1, exclude=unsaid)) + b"\n")
    return record


def check_space(record: RunRecord, *spaces: "Space") -> None:
    """CacheMismatchError with what differs, unless the numbers of the spaces mean what the head was trained on. Of a run on
    joined features all are given, in the order of its recipe."""
    if len(spaces) != len(record.spaces):
        names = ", ".join(f"{use.name}-{use.hash[:12]}" for use in record.spaces)
        raise CacheMismatchError(f"the run reads {len(record.spaces)} spaces ({names}), {len(spaces)} are given")
    for use, space in zip(record.spaces, spaces, strict=True):
        _check_use(use, space)


def _check_use(use: SpaceUse, space: "Space") -> None:
    if space.record.hash == use.hash:
        return
    differences = different(use.hashed, space.record.hashed)
    raise CacheMismatchError(
        f"{space.path}: the run was trained on the space {use.name}-{use.hash[:12]}, this is another\n"
        f"{listed(differences, 'run', 'cache') or 'the hashes differ'}\n"
        "choose the space of the run with --space, or extract the videos again as the run needs them"
    )


def read_json(path: Path) -> Any:
    """One of the JSON files of a run."""
    try:
        return parse_json(read_record_bytes(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: missing or damaged ({error})\nrestore it from a copy, or train again"
        ) from error


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """One of the other records of a run, with a digest of itself at its end."""
    replace_file(path, with_digest(strict_json(value)) + b"\n")


def read_sealed(path: Path) -> Any:
    """What `write_sealed` was given; CheckpointError where the file is no longer as it was written. Those of older versions,
    without a digest, are read too."""
    try:
        content = read_record_bytes(path)
        value = parse_json(content)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: missing or damaged ({error})\nrestore it from a copy, or train again"
        ) from error
    if not fits_digest(content):
        raise CheckpointError(
            f"{path} is not as it was written: its digest does not fit its {len(content)} bytes\n"
            'restore it from a copy; if it was changed on purpose, take the last field, "digest", out of it'
        )
    return {name: part for name, part in value.items() if name != "digest"} if isinstance(value, dict) else value


def _no_run(folder: Path, error: OSError) -> CheckpointError:
    if not folder.exists():
        return CheckpointError(f"{folder}: no such run folder\ntrain one with: qle train-heads --out {folder} ...")
    if (folder / SETTINGS_FILE).exists():
        return CheckpointError(
            f"{folder}: a run that is half written: its training has not ended (no {CONFIG_FILE})\n"
            "run the same qle train-heads command again, it goes on from the last checkpoint"
        )
    if runs := sorted(config.parent for config in folder.glob(f"seed-*/{CONFIG_FILE}")):
        return CheckpointError(
            f"{folder}: holds {len(runs)} runs of different seeds, and is none itself\npass one of its runs, e.g. {runs[0]}"
        )
    if any((folder / name).exists() for name in (MODEL_FILE, TEXT_FILE)):
        return CheckpointError(f"{folder}: half of a run: it has weights but no {CONFIG_FILE}\ncopy the whole folder")
    if error.errno is not None and folder.is_dir() and (folder / CONFIG_FILE).exists():
        return CheckpointError(f"{folder / CONFIG_FILE} cannot be read ({error.strerror})")
    return CheckpointError(
        f"{folder}: not a run folder (no {CONFIG_FILE})\npass the folder that qle train-heads --out made"
    )


NO_TOKENS = {"scale", *(stream.name for stream in TIME_STREAMS)}
"""Arrays of a space that no head reads."""


def token_streams(space: Space) -> dict[str, tuple[int, ...]]:
    """Row shape of everything that a head could read."""
    return {name: stream.row_shape for name, stream in space.streams.items() if name not in NO_TOKENS}


def space_use(space: Space, rate_fps: float | None) -> SpaceUse:
    """The same for the record of the run."""
    return SpaceUse(
        name=space.record.name,
        hash=space.record.hash,
        hashed=space.record.hashed,
        streams=token_streams(space),
        rate_fps=rate_fps,
        backbone_source=space.record.recorded.get("source"),
    )


PACKAGES = ("qle", "torch", "accelerate", "transformers", "peft", "numpy", "safetensors", "zarr")


def versions() -> dict[str, str]:
    """Versions of the packages that make the numbers."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:  # used from a checkout without an installation
            continue
    return installed
