"""Official checkpoints to runs and back: every tensor accounted for, nothing in a file executed.

    FILE (.ckpt, .pth, .safetensors) + opt --compat--> head -> a run folder --compat--> FILE

Weights alone say neither what features they were trained on nor who encoded the queries. Where the cache, its streams and the
text encoder are named, the run is bound to them and works like any other; else it can be exported and looked into only.
"""

import argparse
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor

from qle.cache.reader import Space, open_cache
from qle.compat import UPSTREAMS, Upstream, tmass
from qle.compat.detr import bare, input_dims
from qle.config import build_config, config_to_dict
from qle.data.streams.features import StreamSet
from qle.data.streams.recipe import FeatureRecipe, StreamChoice, with_endpoints
from qle.durable import replace_file
from qle.errors import CheckpointError, ConfigError
from qle.heads import task_of
from qle.heads.base import Head
from qle.heads.retrieval import RetrievalHead
from qle.inputs import parse_json
from qle.runs.load import load_head
from qle.runs.record import CONFIG_FILE, RunRecord, SpaceUse, read_json, run_state, save_run, space_use, versions
from qle.segments.ranked import Ranking
from qle.tasks.moments.batches.config import MomentDataConfig
from qle.tasks.retrieval.batches.frames import FrameSource
from qle.text import build_text_encoder
from qle.text.base import TextEncoder
from qle.text.request import TextRequest
from qle.weights import load_file, read_header

OPTIONS_FILE = "opt.json"
"""What the official programs write beside their checkpoints."""
OWN_OPTIONS = "qle"
"""The option of exported files that only an import here reads."""
TORCH_SUFFIXES = (".ckpt", ".pth", ".pt")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """One call of `qle checkpoint import`."""

    upstream: str
    file: Path
    out: Path
    options: Path | None = None
    """opt.json; None: what the file holds, or the one beside it."""
    cache: Path | None = None
    streams: tuple[str, ...] = ()
    text_encoder: str | None = None
    published: bool = False
    """Keep the faults of the official program."""

    def __post_init__(self) -> None:
        if self.upstream not in UPSTREAMS:
            raise ConfigError(f"--from {self.upstream}: choose one of {', '.join(UPSTREAMS)}")
        if bool(self.streams) != (self.cache is not None):
            raise ConfigError("--cache and --stream go together: name the streams that the weights were trained on")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSummary:
    """What came of it."""

    run: str
    head: str
    num_parameters: int
    num_tensors: int
    """In the file."""
    left_out: tuple[str, ...]
    """Tensors of the file that the head has no use for, by name: those of towers, and those that nothing reads."""
    options_from: str
    """Where the official options came from."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Opened:
    """An official file."""

    state: dict[str, Tensor]
    options: dict[str, Any]
    options_from: str


IMPORTING = ".qle-importing"
"""Stands in the folder of a run while it is imported, so that the same command may go on where it was killed."""


def _mark(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise CheckpointError(
            f"{path.parent}: the folder cannot be made ({error.strerror})\ngive another --out"
        ) from error


def import_checkpoint(request: ImportRequest) -> ImportSummary:
    """Everything is read and checked before the run is written; an existing run is never overwritten."""
    upstream = UPSTREAMS[request.upstream]
    mark = request.out / IMPORTING
    if (request.out / CONFIG_FILE).exists() or (not mark.exists() and run_state(request.out) != "new"):
        mark.unlink(missing_ok=True)
        raise ConfigError(f"--out {request.out}: a run is there already; give another folder")
    opened = _open(request, upstream)
    settings = {**opened.options, "published": request.published or bool(opened.options.get("published"))}
    try:
        head: Head = import_module(upstream.module).head_from_official(opened.state, settings)
    except (ConfigError, CheckpointError) as error:  # sizes that no such head has
        raise CheckpointError(
            f"{request.file}: no checkpoint of {request.upstream}, or of another version: {error}"
        ) from error
    features_dim, text_dim = _widths(opened.state, upstream)
    recipe, spaces = _features(request, opened.options, head, features_dim)
    text = _text(request, text_dim)
    left_out = _left_out(opened.state, upstream, head)
    record = _record(request, opened, head, text, recipe, spaces)
    _mark(mark)
    save_run(request.out, record, head, {} if text is None else text.train_state(), {})
    mark.unlink(missing_ok=True)
    return ImportSummary(
        run=str(request.out),
        head=upstream.head,
        num_parameters=sum(parameter.numel() for parameter in head.parameters()),
        num_tensors=len(opened.state),
        left_out=left_out,
        options_from=opened.options_from,
        notes=_notes(request, record, opened.options),
    )


def export_checkpoint(run: Path, out: Path, upstream: str | None = None) -> dict[str, Any]:
    """The head of a run under official names: {entry: state, opt: Namespace} for torch suffixes; tensors for .safetensors, whose
    header holds the options. Imported with the same cache, streams and text encoder, either gives the same run."""
    if out.exists():
        raise ConfigError(f"--out {out}: something is there already; give another name")
    if out.suffix not in (*TORCH_SUFFIXES, ".safetensors"):
        raise ConfigError(f"--out {out}: expected a name that ends in {', '.join(TORCH_SUFFIXES)} or .safetensors")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}")
    head, record = load_head(run)
    name = next((name for name, known in UPSTREAMS.items() if known.head == record.head), None)
    if name is None:
        raise ConfigError(f"{run}: head {record.head} has no official form")
    if upstream not in (None, name):
        raise ConfigError(f"{run} holds the head {record.head}, which goes to {name}, not to {upstream}")
    module = import_module(UPSTREAMS[name].module)
    state = {key: tensor.contiguous() for key, tensor in module.official_state(head).items()}
    options = _run_options(record) | module.official_options(head)
    if out.suffix == ".safetensors":
        content = save(state, metadata={"format": "pt", "opt": json.dumps(options)})
    else:
        buffer = io.BytesIO()
        torch.save({UPSTREAMS[name].entry: state, "epoch": 0, "opt": argparse.Namespace(**options)}, buffer)
        content = buffer.getvalue()
    replace_file(out, content)
    return {"file": str(out), "to": name, "num_tensors": len(state), "size_bytes": len(content)}


def _run_options(record: RunRecord) -> dict[str, Any]:
    """What makes the run beside its head: the options that it was imported with, the longest video under its official name,
    and under `qle`, which no official program reads, how clips are made of rows and the constants that were fitted."""
    options: dict[str, Any] = dict(record.settings.get("imported", {}).get("options", {}))
    own: dict[str, Any] = {**options.pop(OWN_OPTIONS, {}), "is_calibrated": record.is_calibrated}
    if record.ranking is not None:
        own["ranking"] = asdict(record.ranking)
        if record.recipe is not None:
            options["max_video_l" if record.head == "mesm" else "max_v_l"] = record.recipe.window_clips
            own |= {"clip_s": record.recipe.clip_s, "long_videos": record.recipe.long_videos}
    return {**options, OWN_OPTIONS: own}


def _open(request: ImportRequest, upstream: Upstream) -> _Opened:
    loaded = load_file(request.file)
    state = loaded
    if isinstance(loaded, Mapping) and upstream.entry in loaded:
        state = loaded[upstream.entry]
    is_state = isinstance(state, Mapping) and state and all(isinstance(value, Tensor) for value in state.values())
    if not is_state:
        keys = ", ".join(map(str, list(loaded)[:6])) if isinstance(loaded, Mapping) else type(loaded).__name__
        raise CheckpointError(
            f"{request.file}: expected the weights themselves, or a training file that holds them as {upstream.entry!r}\n"
            f"it holds: {keys or 'nothing'}"
        )
    options, where = _options(request, loaded)
    return _Opened({str(name): tensor.float() for name, tensor in bare(state).items()}, options, where)


def _options(request: ImportRequest, checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Named file, else what the checkpoint holds, else the file beside it, else the published defaults."""
    beside = request.file.parent / OPTIONS_FILE
    inside = checkpoint.get("opt", checkpoint.get("args"))
    if request.options is not None:
        path = request.options
    elif isinstance(inside, argparse.Namespace | Mapping):
        return dict(vars(inside) if isinstance(inside, argparse.Namespace) else inside), "the checkpoint"
    elif header := read_header(request.file).get("opt"):
        return _header_options(request.file, header), "the checkpoint"
    elif beside.is_file():
        path = beside
    else:
        return {}, "published defaults: neither the checkpoint nor an opt.json beside it says otherwise"
    values = read_json(path)
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object of options, got {type(values).__name__}")
    return values, str(path)


def _header_options(path: Path, text: str) -> dict[str, Any]:
    """Options that an export here wrote into the header of a .safetensors file."""
    try:
        values = parse_json(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: the options in its header are no JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object of options in its header, got {type(values).__name__}")
    return values


def _widths(state: Mapping[str, Tensor], upstream: Upstream) -> tuple[int, int]:
    if upstream.head == "tmass":
        return tmass.input_dims(state)
    return input_dims(state)


def _features(
    request: ImportRequest, options: Mapping[str, Any], head: Head, dim: int
) -> tuple[FeatureRecipe | None, tuple[Space, ...]]:
    """The streams of the cache, which must be as wide as the weights expect."""
    if request.cache is None:
        return None, ()
    cache, choices = open_cache(request.cache), tuple(StreamChoice.parse(text) for text in request.streams)
    if task_of(head.name).ranks_videos:
        if len(choices) > 1:
            raise ConfigError("--stream: heads that rank videos read one stream of frames")
        source = FrameSource.open(cache, choices[0], cast(RetrievalHead, head).num_frames)
        recipe = source.recipe
        spaces: tuple[Space, ...] = (source.space,)
    else:
        config = _clip_options(request, options, pools=head.name == "mesm")
        streams = StreamSet.open(cache, with_endpoints(choices), config)
        recipe, spaces = streams.recipe, tuple(streams.spaces)
    if recipe.dim != dim:
        parts = " + ".join(f"{part.dim}{' + 2' if part.has_endpoints else ''}" for part in recipe.parts)
        raise ConfigError(
            f"the weights read {dim} numbers a clip, --stream gives {recipe.dim} ({parts})\n"
            "name the streams that they were trained on, in their order (+tef puts two temporal endpoints behind one)"
        )
    return recipe, spaces


def _clip_options(request: ImportRequest, options: Mapping[str, Any], *, pools: bool) -> MomentDataConfig:
    """How many clips the head sees at once, and what becomes of the others."""
    longest, own = options.get("max_v_l", options.get("max_video_l")), _own_options(request, options)
    settings = {name: own[name] for name in ("clip_s", "long_videos") if name in own}
    if isinstance(longest, int) and longest > 0:
        # MESM averages what is longer, the others are asked in windows that overlap.
        settings = {"long_videos": "pool" if pools else "windows", **settings, "window_clips": longest}
    return build_config(MomentDataConfig, settings, where=f"{request.file}: options")


def _own_options(request: ImportRequest, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an export here said in `qle`; nothing in official files."""
    own = options.get(OWN_OPTIONS, {})
    if not isinstance(own, Mapping):
        raise CheckpointError(
            f"{request.file}: expected {OWN_OPTIONS} of its options to hold names and values, got {own!r:.80}"
        )
    return own


def _record(
    request: ImportRequest, opened: _Opened, head: Head, text: TextEncoder | None, recipe: FeatureRecipe | None,
    spaces: Sequence[Space],
) -> RunRecord:  # fmt: skip
    """The record of a run that was never trained here."""
    features_dim, text_dim = _widths(opened.state, UPSTREAMS[request.upstream])
    unbound = SpaceUse(name="", hash="", hashed={}, streams={head.streams[0]: (features_dim,)}, rate_fps=None)
    first, *more = [space_use(space, None) for space in spaces] or [unbound]
    imported = {"from": request.upstream, "file": request.file.name, "options": _plain(opened.options)}
    own = _own_options(request, opened.options)
    ranking = build_config(Ranking, own.get("ranking", {}), where=f"{request.file}: options")
    return RunRecord(
        head=head.name,
        head_config=config_to_dict(head.config),
        text={} if text is None else text.spec(),
        text_dim=text_dim,
        sentence_dim=text_dim if text is None else text.sentence_dim,
        space=first,
        more_spaces=tuple(more),
        recipe=recipe,
        ranking=None if task_of(head.name).ranks_videos else ranking,
        is_calibrated=own.get("is_calibrated") is True,
        priors=None,
        settings={"imported": imported},
        selection={},
        versions=versions(),
        created=datetime.now(UTC),
    )


def _text(request: ImportRequest, text_dim: int) -> TextEncoder | None:
    if request.text_encoder is None:
        return None
    text = build_text_encoder(TextRequest(name=request.text_encoder))
    if text.dim != text_dim:
        raise ConfigError(
            f"--text-encoder {request.text_encoder} gives {text.dim} numbers a word, the weights read {text_dim}"
        )
    return text


def _left_out(state: Mapping[str, Tensor], upstream: Upstream, head: Head) -> tuple[str, ...]:
    if upstream.head == "tmass":
        return tmass.left_out(state)
    back = import_module(upstream.module).official_state(head)
    return tuple(
        name for name, tensor in state.items() if name not in back or not torch.equal(back[name].float(), tensor)
    )


def _notes(request: ImportRequest, record: RunRecord, options: Mapping[str, Any]) -> tuple[str, ...]:
    """What the weights cannot show, for people."""
    bound = (("--cache and --stream", record.recipe), ("--text-encoder", record.text))
    missing = [what for what, is_there in bound if not is_there]
    if missing:
        return (
            f"not bound to {' or '.join(missing)}: it can be exported; to localize with it, import it again with them",
        )
    notes = [] if record.recipe is None else _order_notes(request, record.recipe, options)
    if record.ranking is not None and not record.is_calibrated:
        notes.append(
            "scores are raw: an official file holds no calibration, so they rank moments and are no probabilities"
        )
    return tuple(notes)


def _order_notes(request: ImportRequest, recipe: FeatureRecipe, options: Mapping[str, Any]) -> list[str]:
    """Features in another order have the same width, and the head then answers with noise."""
    notes = []
    is_last = [part.has_endpoints for part in recipe.parts] == [False] * (len(recipe.parts) - 1) + [True]
    # Sound comes behind the endpoints in the published form with sound, and only there.
    if UPSTREAMS[request.upstream].head != "tmass" and not is_last and not options.get("a_feat_dir"):
        notes.append(
            f"the temporal endpoints (+tef) do not stand last, as in the published features of {request.upstream} "
            "they do (but for sound behind them)"
        )
    if len(recipe.parts) > 1:
        named = options.get("v_feat_dirs")
        said = (
            f"; its options name {', '.join(Path(str(folder)).name for folder in named)}"
            if isinstance(named, list)
            else ""
        )
        notes.append(
            f"the order of streams must be that of training, which weights do not tell: {' + '.join(request.streams)}{said}"
        )
    return notes


def _plain(value: Any) -> Any:
    """For JSON: what is no plain value (a device) as its text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)
