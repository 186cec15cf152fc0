"""Videos for a run that its space does not hold yet: found in the cache, else extracted exactly as the space was.

    video sources + the space of a run -> each with its cached Video, or the error that this one video ends with

With a cache, what is new is committed there and stays. Without one each video goes through a temporary cache that is gone
when the next one begins, so that a folder of films needs the disk of one. Either way what is scored are rows that were read
back from a cache, by the same code as always: the result is that of a cached video, to the last bit.
"""

import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qle.backbones import BackboneRequest
from qle.cache.index import load_index
from qle.cache.reader import Space, Video
from qle.cache.records import is_same_source
from qle.cache.sources import fingerprint
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.states import states
from qle.cache.tools.rewrite import rewrite_video
from qle.durable import Durability
from qle.errors import CacheError, DecodeError, QleError
from qle.extract.device import run_targets
from qle.extract.progress import Progress
from qle.extract.request import ExtractRequest, TokenOptions
from qle.extract.respec import recipe_of
from qle.extract.target import Target
from qle.extract.tokens import stored_streams
from qle.runs.record import SpaceUse
from qle.runs.spaces import find_space
from qle.runtime import keep_freed_memory
from qle.types import SourceFingerprint, SpaceSpec, VideoSource

OnExtracting = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Supplied:
    """One video that was asked for."""

    source: VideoSource
    video: Video | None
    """Its key may be another one than that of the source, where the same film was extracted under another name."""
    space: Space | None = None
    """Where it lies."""
    error: QleError | None = None
    """Why there is none."""


def supply(
    use: SpaceUse,
    sources: Sequence[VideoSource],
    *,
    cache: Path | None,
    weights: str | None = None,
    device: str = "auto",
    on_progress: OnExtracting = lambda progress: None,
) -> Generator[Supplied, None, None]:
    """Every source as a cached video, in their order. The recipe is checked before the first one is touched."""
    folder = None if cache is None else find_space(cache, use)
    there = {} if folder is None else _already(folder, sources)
    missing = [source for source in sources if source.key not in there]
    recorded = use.backbone_source or (None if folder is None else folder.record.recorded.get("source"))
    maker = _Maker(use, weights, device, on_progress, recorded=recorded) if missing else None
    reasons: dict[str, QleError] = {}
    if maker is not None and cache is not None:
        folder = folder or create_space(cache, maker.spec)
        reasons = maker.extract(missing, folder, durability="full")
        there |= {source.key: source.key for source in missing if source.key not in reasons}
    space = None if folder is None else Space(folder)
    for source in sources:
        if space is not None and source.key in there:
            yield Supplied(source=source, video=space.video(there[source.key]), space=space)
        elif maker is None or source.key in reasons:
            yield Supplied(source=source, video=None, error=reasons[source.key])
        else:
            yield from maker.pass_by(source)


def _already(folder: SpaceFolder, sources: Sequence[VideoSource]) -> dict[str, str]:
    """Key that each source is committed under, where it is: the same bytes and the same part, whatever they are called.

    A film that was extracted as `day1/a.mp4` is found again when it is given as the single file `a.mp4`.
    """
    index = load_index(folder)
    columns = [index.texts(name) for name in ("key", "problem", "source_start_s", "source_end_s", "source_edge_hash")]
    by_size: dict[int, list[tuple]] = {}
    for size, mtime_ns, *values in zip(
        index.column("source_size").tolist(), index.column("source_mtime_ns").tolist(), *columns, strict=True
    ):
        by_size.setdefault(size, []).append((mtime_ns, *values))
    space, committed = Space(folder), {}
    for source in sources:
        size = source.path.stat().st_size if source.path.is_file() else -1
        own = fingerprint(source.path) if by_size.get(size) else None
        keys = [
            key
            for mtime_ns, key, problem, start_s, end_s, edge_hash in by_size.get(size, ())
            if not problem and (start_s, end_s) == (source.start_s, source.end_s) and own is not None
            and is_same_source(own, SourceFingerprint(size=size, mtime_ns=mtime_ns, edge_hash=edge_hash))
        ]  # fmt: skip
        for key in sorted(keys, key=lambda key: (key != source.key, key)):
            if _opens(space, key):
                committed[source.key] = key
                break
    return committed


def _opens(space: Space, key: str) -> bool:
    """A video whose files are not as recorded is made again, if its source is at hand."""
    try:
        space.video(key)
    except CacheError:
        return False
    return True


class _Maker:
    """Extracts videos into spaces of one meaning."""

    def __init__(
        self, use: SpaceUse, weights: str | None, device: str, on_progress: OnExtracting, *, recorded: str | None
    ) -> None:
        self._recipe = recipe_of(use.name, use.hashed, weights=weights, device=device, recorded=recorded)
        self._on_progress = on_progress
        recipe = self._recipe
        tokens = TokenOptions(
            tokens=use.hashed["tokens"]["kept"], grid=use.hashed["tokens"]["grid"], dtype=use.hashed["tokens"]["dtype"]
        )
        streams = stored_streams(recipe.backbone.streams, tokens)
        self.spec = SpaceSpec(
            name=use.name, hashed=use.hashed, streams=streams, recorded=recipe.extracted.recorded
        )  # fmt: skip
        if recipe.backbone.device.type == "cpu":
            keep_freed_memory()

    def pass_by(self, source: VideoSource) -> Iterator[Supplied]:
        """One video through a temporary cache, which is gone when the caller asks for the next one."""
        with tempfile.TemporaryDirectory(prefix="qle-") as temp:
            folder = create_space(Path(temp) / "cache", self.spec)
            error = self.extract([source], folder, durability="none").get(source.key)
            space = Space(folder)
            video = None if error else space.video(source.key)
            yield Supplied(source=source, video=video, error=error, space=space)

    def extract(
        self, sources: Sequence[VideoSource], folder: SpaceFolder, *, durability: Durability
    ) -> dict[str, QleError]:
        """Key -> why there is nothing, for the videos that failed."""
        if not self._recipe.is_derived:
            return self._extract(sources, folder, durability)
        reasons: dict[str, QleError] = {}
        for source in sources:  # one by one: what they are derived from is larger, and wanted by nobody
            with tempfile.TemporaryDirectory(prefix="qle-") as temp:
                whole = create_space(Path(temp) / "cache", self._recipe.extracted)
                reasons |= self._extract([source], whole, "none")
                if source.key not in reasons:
                    is_there = folder.locate(source.key) is not None  # in another version, or it would not be missing
                    rewrite_video(
                        Space(whole).video(source.key), folder, store="zarr", replace=is_there, durability=durability
                    )
        return reasons

    def _extract(
        self, sources: Sequence[VideoSource], folder: SpaceFolder, durability: Durability
    ) -> dict[str, QleError]:
        recipe = self._recipe
        device = recipe.backbone.device
        request = ExtractRequest(
            inputs=tuple(str(source.path) for source in sources),
            cache=folder.path.parent,
            backbones=(BackboneRequest(name=recipe.backbone.name),),  # the loaded one is handed over below
            sampling=recipe.sampling,
            tokens=recipe.tokens,
            devices=(str(device),),
            retry_failed=True,
            durability=durability,
        )
        target = Target(recipe.backbone, folder, folder.record.streams)
        run_targets(request, sources, [target], device, self._on_progress)
        return {
            state.key: DecodeError(f"{state.key}: {state.reason or state.state}", kind=state.state)
            for state in states(folder, sources)
            if state.state != "done"
        }
