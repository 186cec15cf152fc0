"""`qle cache ...`: each command parses, calls one function of qle/cache, and shows the result.

Nothing heavy is imported before a command needs it: `qle --help` comes through here too.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from qle.cli import console
from qle.cli.arguments import App
from qle.cli.options import Json, Quiet, examples
from qle.cli.progress import StepProgress
from qle.errors import ConfigError
from qle.runtime import cache_folder

if TYPE_CHECKING:
    import numpy as np

    from qle.cache.tools.inspect import CacheFacts, SpaceFacts, VideoFacts
    from qle.cache.tools.verify import Finding

cache_app = App(
    help="Look at, check, convert, unite and clean caches of tokens.", no_args_is_help=True, rich_markup_mode="rich"
)

CacheArgument = Annotated[
    Path | None, typer.Argument(help="Folder of the cache. Default: $QLE_CACHE.", show_default=False)
]
Spaces = Annotated[
    list[str] | None, typer.Option("--space", help="Only this space, by any beginning of its name; may be repeated.")
]

DAMAGE_EXIT = 3
SOME_FAILED_EXIT = 4


def example(*lines: str) -> str:
    """The end of a help text of `qle cache`."""
    return examples("qle cache", *lines)


@cache_app.command(
    help="What a cache holds: spaces, streams, videos by state, hours, bytes, provenance; or one video's numbers."
    + example(
        "inspect /data/cache",
        "inspect /data/cache --video 'ward 3/a.mp4' --picture a.png",
        "inspect /data/cache --json",
    )
)
def inspect(
    cache: CacheArgument = None,
    space: Spaces = None,
    video_id: Annotated[
        str | None, typer.Option("--video", help="A video, by its key, file name or stem: statistics of each stream.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="With --video: PNG with the patch tokens as colours over time.")] = None,
    json: Json = False,
) -> None:  # fmt: skip
    from qle.cache.tools.inspect import find_video, inspect_cache, inspect_video, token_strip

    root = cache_folder(cache)
    if picture is not None and video_id is None:
        raise ConfigError("--picture draws one video: name it with --video KEY")
    if video_id is None:
        facts = inspect_cache(root, space or ())
        console.print_json(asdict(facts)) if json else _show_cache(facts)
        return
    videos = inspect_video(root, video_id, space or ())
    console.print_json([asdict(facts) for facts in videos]) if json else _show_videos(videos)
    if picture is not None:
        _, opened = find_video(root, video_id, space or ())[0]
        console.note(f"tokens as colours: {token_strip(opened, picture)}")


@cache_app.command(
    help="Check every video against its record: sizes, and with --deep every byte. Exit code 3 when something is wrong."
    + example(
        "verify /data/cache", "verify /data/cache --deep", "verify /data/cache --deep --video a.mp4 --video b.mp4"
    )
)
def verify(
    cache: CacheArgument = None,
    space: Spaces = None,
    video_id: Annotated[list[str] | None, typer.Option("--video", help="Only this video, by its key; may be repeated.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Hash every file: finds one flipped bit. A killed run goes on.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Files hashed at a time.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    from qle.cache.tools.verify import verify as run

    root = cache_folder(cache)
    with StepProgress("verified", is_bytes=True, is_quiet=quiet) as progress:
        report = run(
            root, spaces=space or (), keys=video_id or (), deep=deep, num_threads=threads, on_progress=progress.update
        )  # fmt: skip
    if json:
        console.print_json(asdict(report))
    else:
        for key, faults in report.faults.items():
            console.print_text(f"{key}: {faults}")
        rows = [(f.space, f.key, f.file, f.problem, _few(f.videos)) for f in report.findings]
        if rows:
            console.table(["space", "video or pack", "file", "problem", "videos in that file"], rows)
        before = f", {report.num_from_before:,} of them by a run that was interrupted" if report.num_from_before else ""
        console.print_text(
            f"{report.num_videos:,} videos{before}, {report.num_files:,} files: "
            f"{len(rows) or 'no'} problems{'' if deep else ' (sizes only; --deep hashes every byte)'}"
        )
        if rows:
            console.print_text(_repair(root, report.findings, deep))
    raise typer.Exit(DAMAGE_EXIT if report.findings else 0)


@cache_app.command(
    help="Another format (in place), number type or grid (a new space, derived from the old one). A killed run goes on."
    + example(
        "convert /data/cache --store hdf5",
        "convert /data/cache --space m2crl --dtype int8",
        "convert /data/cache --grid 7 --to /data/small",
    )
)
def convert(
    cache: CacheArgument = None,
    space: Annotated[str | None, typer.Option(help="The space, by any beginning of its name; the only one if not given.")] = None,
    store: Annotated[str | None, typer.Option(help="zarr or hdf5.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float16, bfloat16, float32 or int8.")] = None,
    grid: Annotated[int | None, typer.Option(help="Mean-pool the patch map to GRID x GRID.")] = None,
    to: Annotated[Path | None, typer.Option(help="Another cache that gets the result; made if missing.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    from qle.cache.tools.convert import convert as run
    from qle.types import StoreDtype, StoreKind

    with StepProgress("converted", is_quiet=quiet) as progress:
        report = run(
            cache_folder(cache),
            space,
            store=_choice("store", store, get_args(StoreKind)),
            dtype=_choice("dtype", dtype, get_args(StoreDtype)),
            grid=grid,
            target=to,
            on_progress=progress.update,
        )
    _show_report(
        asdict(report),
        f"{report.num_converted:,} videos converted, {report.num_already:,} were already: "
        f"{console.format_bytes(report.size_bytes)} written into {report.space}",
        as_json=json,
    )
    raise typer.Exit(SOME_FAILED_EXIT if report.damaged else 0)


@cache_app.command(
    help="Bring all videos of several caches into one. Equal spaces unite, nothing is overwritten. A killed run goes on."
    + example("merge /data/site1 /data/site2 --into /data/all", "merge /data/new --into /data/all --link")
)
def merge(
    caches: Annotated[list[Path], typer.Argument(help="Caches to read.")],
    into: Annotated[Path, typer.Option(help="The cache that gets everything; made if missing.")],
    space: Spaces = None,
    link: Annotated[
        bool, typer.Option("--link/--copy", help="Hard links, where both are on one disk, or copies.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    from qle.cache.tools.merge import merge as run

    with StepProgress("merged", is_quiet=quiet) as progress:
        report = run(caches, into, spaces=space or (), link="hard" if link else "copy", on_progress=progress.update)
    if report.conflicts and not json:
        console.table(
            ["conflict", "space", "kept", "left out"],
            [(c.key, c.space, c.ours, f"{c.theirs} in {c.cache}") for c in report.conflicts],
        )
    _show_report(
        asdict(report),
        f"{report.num_merged:,} videos merged ({console.format_bytes(report.size_bytes)}), "
        f"{report.num_already:,} were there, {len(report.conflicts):,} conflicts left as they were",
        as_json=json,
    )
    raise typer.Exit(DAMAGE_EXIT if report.conflicts else SOME_FAILED_EXIT if report.damaged else 0)


@cache_app.command(
    help="Show what may go, and with --yes delete it: leftovers of killed runs, and on request damaged, stale or orphaned "
    "videos, or whole spaces."
    + example(
        "prune /data/cache",
        "prune /data/cache --stale --damaged --yes",
        "prune /data/cache --damaged --deep --yes",
        "prune /data/cache --delete-space tiny-1fps --yes",
    )
)
def prune(
    cache: CacheArgument = None,
    space: Spaces = None,
    damaged: Annotated[bool, typer.Option("--damaged", help="Videos whose files are not as recorded.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="With --damaged: hash every file, as verify --deep does.")] = False,
    stale: Annotated[bool, typer.Option("--stale", help="Videos whose source file has changed.")] = False,
    orphaned: Annotated[bool, typer.Option("--orphaned", help="Videos whose source file is gone.")] = False,
    delete_space: Annotated[list[str] | None, typer.Option(help="A whole space, by any beginning of its name.")] = None,
    idle_hours: Annotated[float, typer.Option(min=0, help="How long nothing was written to a leftover of another machine.")] = 24,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it nothing is deleted.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    from qle.cache.tools.prune import DEFAULT_KINDS, Kind, plan_prune
    from qle.cache.tools.prune import prune as run

    root = cache_folder(cache)
    if delete_space and (damaged or stale or orphaned or space):
        raise ConfigError(
            "--delete-space deletes whole spaces: pass it without --space, --damaged, --stale and --orphaned"
        )
    wanted: dict[Kind, bool] = {"damaged": damaged, "stale": stale, "orphaned": orphaned}
    kinds: tuple[Kind, ...] = (*DEFAULT_KINDS, *(kind for kind, is_wanted in wanted.items() if is_wanted))
    if delete_space:
        kinds = ("space",)
    items = plan_prune(root, kinds=kinds, spaces=delete_space or space or (), idle_hours=idle_hours, deep=deep)
    if yes:
        with StepProgress("deleted", is_bytes=True, is_quiet=quiet) as progress:
            run(root, items, progress.update)
    total = console.format_bytes(sum(item.size_bytes for item in items))
    if json:
        console.print_json({"is_deleted": yes, "items": [asdict(item) for item in items]})
        return
    if items:
        rows = [(i.kind, i.key or i.path.name, console.format_bytes(i.size_bytes), i.reason) for i in items]
        console.table(["kind", "what", "#size", "why"], rows)
    after = "deleted" if yes else "would go; nothing was deleted, pass --yes to delete"
    console.print_text(f"{len(items):,} things, {total}: {after}" if items else "nothing to prune")


@cache_app.command(
    help="Put many short videos into few files; they read as before. A killed run goes on."
    + example("pack /data/cache", "pack /data/cache --space tiny --max-video-mb 16")
)
def pack(
    cache: CacheArgument = None,
    space: Spaces = None,
    max_video_mb: Annotated[float, typer.Option(min=0, help="Longer videos stay by themselves.")] = 64,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    from qle.cache.tools.pack import pack as run

    with StepProgress("packed", is_quiet=quiet) as progress:
        report = run(
            cache_folder(cache),
            spaces=space or (),
            max_video_bytes=round(max_video_mb * 1e6),
            on_progress=progress.update,
        )
    _show_report(asdict(report), f"{report.num_packed:,} videos packed into {report.num_packs:,} packs", as_json=json)
    raise typer.Exit(SOME_FAILED_EXIT if report.damaged else 0)


@cache_app.command(
    help="Find films that have moved, by what they hold, and note where they are now; no token is touched. A killed run goes "
    "on. Exit code 4 when some were not found."
    + example(
        "relink /data/cache --films /archive/2024 --dry-run",
        "relink /data/cache --films /archive/2024 --films /archive/2025",
    )
)
def relink(
    cache: CacheArgument = None,
    films: Annotated[list[Path] | None, typer.Option(help="Folder where the films may be now; may be repeated.")] = None,
    space: Spaces = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be noted; write nothing.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    from qle.cache.tools.relink import relink as run

    if not films:
        raise ConfigError("relink needs --films FOLDER: where the films may be now")
    with StepProgress("noted", is_quiet=quiet) as progress:
        report = run(cache_folder(cache), films, spaces=space or (), is_dry_run=dry_run, on_progress=progress.update)
    if json:
        console.print_json(asdict(report))
    else:
        if report.moved:
            copies = [f" ({it.num_copies} copies)" if it.num_copies > 1 else "" for it in report.moved]
            rows = [(it.key, it.old, it.new + copy) for it, copy in zip(report.moved, copies, strict=True)]
            console.table(["video", "was at", "is at"], rows)
        if report.missing:
            console.table(["not found", "was at"], report.missing.items())
        console.print_text(
            f"{report.num_in_place:,} films are where they were, {len(report.moved):,} were found elsewhere, "
            f"{len(report.missing):,} were not found{'; nothing was written' if dry_run else ''}"
        )
    raise typer.Exit(SOME_FAILED_EXIT if report.missing else 0)


@cache_app.command(
    "import",
    help="Feature files of others into a space: .npz, .npy, .pt, one a video, or .h5/.hdf5 keyed by id. "
    "Their rows need times: --clip-length (row i at its clip's middle), --fps (row i at i/fps), or an array `pts` in the file."
    + example(
        "import /data/cache --from clip_features/ --name clip-b32 --clip-length 2",
        "import /data/cache --from i3d.hdf5 --name i3d --fps 1.5 --array feat",
    ),
)
def import_(
    cache: CacheArgument = None,
    source: Annotated[list[Path] | None, typer.Option("--from", help="Feature file or folder of them; may be repeated.")] = None,
    name: Annotated[str | None, typer.Option(help="What made the features; names the space and tells it from others.")] = None,
    clip_length: Annotated[float | None, typer.Option(help="Seconds that a row describes.")] = None,
    fps: Annotated[float | None, typer.Option(help="Rows a second.")] = None,
    array: Annotated[str, typer.Option(help="Which array, where a file holds several.")] = "features",
    dtype: Annotated[str | None, typer.Option(help="float16 or float32; default as the first file has it.")] = None,
    store: Annotated[str, typer.Option(help="zarr or hdf5.")] = "zarr",
    json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    from qle.cache.tools.interchange import ImportOptions, import_features
    from qle.types import StoreKind

    if not source or not name:
        raise ConfigError("import needs --from FILES and --name NAME (what made the features)")
    options = ImportOptions(
        name=name, fps=fps, clip_length_s=clip_length, array=array,
        dtype=_choice("dtype", dtype, ("float16", "float32")), store=_choice("store", store, get_args(StoreKind)),
    )  # fmt: skip
    with StepProgress("imported", is_quiet=quiet) as progress:
        report = import_features(
            source, cache_folder(cache), options, load_tensors=load_tensors, on_progress=progress.update
        )
    summary = f"{report.num_imported:,} videos imported into {report.space}, {report.num_already:,} were there"
    _show_report(asdict(report), f"{summary}, {len(report.failed):,} failed", as_json=json)
    raise typer.Exit(SOME_FAILED_EXIT if report.failed else 0)


@cache_app.command(
    help="A stream as feature files for other programs: one .npz (features, pts), .npy or .pt a video, or one .h5 keyed by id."
    + example(
        "export /data/cache --to features/",
        "export /data/cache --to patches.h5 --form h5 --stream patch --space m2crl",
    )
)
def export(
    cache: CacheArgument = None,
    to: Annotated[Path | None, typer.Option(help="Folder for the files, or the .h5 file.")] = None,
    space: Annotated[str | None, typer.Option(help="The space, by any beginning of its name; the only one if not given.")] = None,
    stream: Annotated[str, typer.Option(help="frame, patch, clip...")] = "frame",
    form: Annotated[str | None, typer.Option(help="npz, npy, pt or h5; default h5 for a name that ends so, else npz.")] = None,
    video_id: Annotated[list[str] | None, typer.Option("--video", help="Only this video, by its key; may be repeated.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    from qle.cache.tools.feature_files import Form
    from qle.cache.tools.interchange import export_features

    if to is None:
        raise ConfigError("export needs --to FOLDER, or --to FILE.h5 --form h5")
    chosen: Form = _choice("form", form or ("h5" if to.suffix in (".h5", ".hdf5") else "npz"), get_args(Form))
    with StepProgress("exported", is_quiet=quiet) as progress:
        report = export_features(
            cache_folder(cache), to, space=space, stream=stream, form=chosen, keys=video_id or (), save_tensor=save_tensor,
            on_progress=progress.update,
        )  # fmt: skip
    summary = f"{report.num_exported:,} videos written to {to} ({console.format_bytes(report.size_bytes)})"
    _show_report(asdict(report), f"{summary}, {report.num_already:,} were there", as_json=json)


def load_tensors(path: Path) -> "dict[str, np.ndarray]":
    """Arrays of a .pt file, without running any code in it. qle/cache knows no torch, so it is handed this."""
    import torch

    from qle.errors import InputError
    from qle.weights import load_file

    loaded = load_file(path)
    named = loaded if isinstance(loaded, Mapping) else {"features": loaded}
    tensors = {str(name): value for name, value in named.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise InputError(f"{path} holds no tensor")
    return {
        name: (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy()
        for name, value in tensors.items()
    }


def save_tensor(path: Path, values: "np.ndarray") -> None:
    """An array as a bare tensor in a .pt file."""
    import torch

    torch.save(torch.from_numpy(values), path)


def _choice(flag: str, value: str | None, choices: tuple[str, ...]) -> Any:
    if value is not None and value not in choices:
        raise ConfigError(f"--{flag} {value}: choose one of {', '.join(choices)}")
    return value


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def _repair(root: Path, findings: "Sequence[Finding]", deep: bool) -> str:
    """What to do about damage, on one line."""
    steps = []
    if broken := [finding for finding in findings if not finding.key]:
        steps.append(f"first repair {', '.join(str(root / f.space / f.file) for f in broken)} as said above")
    if any(finding.key and not finding.pack for finding in findings):
        words = ["qle", "cache", "prune", str(root), "--damaged", *(["--deep"] if deep else []), "--yes"]
        steps.append(f"run: {shlex.join(words)}")
    for path in sorted({root / f.space / "packs" / f.pack for f in findings if f.pack}):
        steps.append(f"delete the pack {path}, which goes only as a whole")
    return "; ".join([*steps, "then run the same qle extract command again, which makes what is missing"])


def _show_report(report: Mapping[str, Any], summary: str, *, as_json: bool) -> None:
    """The summary, and below it the videos that were left out because they are damaged."""
    if as_json:
        console.print_json(report)
        return
    console.print_text(summary)
    if left_out := report.get("damaged") or report.get("failed"):
        console.table(["left out", "why"], left_out.items())


def _show_cache(facts: "CacheFacts") -> None:
    if not facts.spaces:
        console.print_text("the cache has no space yet; make one with: qle extract --cache ...")
    if facts.num_leftovers:
        console.print_text(f"beside the spaces: {_left(facts)}")
    for space in facts.spaces:
        total = console.format_bytes(space.disk_bytes)
        console.facts(
            {
                "videos": ", ".join(f"{count:,} {state}" for state, count in space.states.items() if count) or "none",
                "rows": f"{space.num_rows:,} ({space.num_rows - space.num_valid:,} invalid), {space.hours:.2f} h of video",
                **(
                    {"not whole": _few(tuple(f"{key} ({faults})" for key, faults in space.faults.items()))}
                    if space.faults
                    else {}
                ),
                "size": f"{console.format_bytes(space.token_bytes)} of tokens and times, {total} on disk"
                + (f", {space.num_packed:,} videos packed" if space.num_packed else ""),
                **({"left": _left(space)} if space.num_leftovers else {}),
                "made": f"{space.created:%Y-%m-%d %H:%M} UTC, hash {space.hash[:16]}",
                **{name: _brief(value) for name, value in space.provenance.items() if name != "streams"},
            },
            title=space.name,
        )
        console.table(
            ["stream", "axes", "shape of a row", "dtype"],
            [
                (s.name, " ".join(("time", *s.axes)), " x ".join(map(str, s.shape)) or "1", s.dtype)
                for s in space.streams
            ],
        )


def _left(facts: "CacheFacts | SpaceFacts") -> str:
    """What killed commands left, and what to do about it."""
    return (
        f"{facts.num_leftovers:,} things of {console.format_bytes(facts.leftover_bytes)} that killed commands left; "
        "the same commands go on from them or remove them, and so does: qle cache prune"
    )


def _show_videos(videos: "list[VideoFacts]") -> None:
    for video in videos:
        source = video.source
        console.facts(
            {
                "space": video.space,
                "rows": f"{video.num_rows:,} ({video.num_rows - video.num_valid:,} invalid), "
                f"{video.first_pts_s:.3f} s to {video.last_pts_s:.3f} s",
                **({"not whole": video.faults} if video.faults else {}),
                "files": f"{video.num_files} ({video.store}{', packed' if video.is_packed else ''}), "
                f"{console.format_bytes(video.size_bytes)}, in {video.folder}",
                "source": f"{source['path']}, {console.format_bytes(source['fingerprint']['size'])}, "
                f"{source['codec'] or 'unknown codec'} {source['width']}x{source['height']}, {source['duration_s']:.1f} s",
                "made": f"{video.created:%Y-%m-%d %H:%M} UTC, attempt {video.attempt}",
            },
            title=video.key,
        )
        rows = [
            (
                *(s.name, " x ".join(map(str, s.shape)), s.dtype),
                *map(_number, (s.minimum, s.maximum, s.mean, s.std)),
                s.num_not_finite,
            )
            for s in video.streams
        ]
        console.table(["stream", "shape", "dtype", "#min", "#max", "#mean", "#std", "#not finite"], rows)


def _brief(value: Any) -> str:
    """A nested description on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_brief(inner)}" for name, inner in value.items() if inner is not None)
    if isinstance(value, list | tuple):
        return " ".join(map(_brief, value))
    return str(value)[:16] if isinstance(value, str) and len(value) > 60 else str(value)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.5g}"
