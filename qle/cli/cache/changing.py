"""`qle cache convert`, `merge`, `prune`, `pack` and `relink`: what changes a cache as a whole."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, get_args

import typer

from qle.cli import console
from qle.cli.cache.options import DAMAGE_EXIT, SOME_FAILED_EXIT, CacheArgument, Spaces, choice, example, show_report
from qle.cli.options import Json, Quiet
from qle.cli.progress import StepProgress
from qle.errors import ConfigError
from qle.runtime import cache_folder

CONVERT_HELP = (
    "Another format (in place), number type or grid (a new space, derived from the old one). A killed run goes on."
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
            store=choice("store", store, get_args(StoreKind)),
            dtype=choice("dtype", dtype, get_args(StoreDtype)),
            grid=grid,
            target=to,
            on_progress=progress.update,
        )
    show_report(
        asdict(report),
        f"{report.num_converted:,} videos converted, {report.num_already:,} were already: "
        f"{console.format_bytes(report.size_bytes)} written into {report.space}",
        as_json=json,
    )
    raise typer.Exit(SOME_FAILED_EXIT if report.damaged else 0)


MERGE_HELP = (
    "Bring all videos of several caches into one. Equal spaces unite, nothing is overwritten. A killed run goes on."
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
    show_report(
        asdict(report),
        f"{report.num_merged:,} videos merged ({console.format_bytes(report.size_bytes)}), "
        f"{report.num_already:,} were there, {len(report.conflicts):,} conflicts left as they were",
        as_json=json,
    )
    raise typer.Exit(DAMAGE_EXIT if report.conflicts else SOME_FAILED_EXIT if report.damaged else 0)


PRUNE_HELP = (
    "Show what may go, and with --yes delete it: leftovers of killed runs, and on request damaged, stale or orphaned "
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


PACK_HELP = "Put many short videos into few files; they read as before. A killed run goes on." + example(
    "pack /data/cache", "pack /data/cache --space tiny --max-video-mb 16"
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
    show_report(asdict(report), f"{report.num_packed:,} videos packed into {report.num_packs:,} packs", as_json=json)
    raise typer.Exit(SOME_FAILED_EXIT if report.damaged else 0)


RELINK_HELP = (
    "Find films that have moved, by what they hold, and note where they are now; no token is touched. A killed run goes "
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
