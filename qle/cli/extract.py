"""`qle extract`: parses, builds a request, runs it or estimates it, and shows what was committed."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from qle.cli import console
from qle.cli.options import Json
from qle.cli.progress import ExtractProgress
from qle.errors import ConfigError
from qle.runtime import cache_folder

MOST_FAILURES = 10
"""Shown in full at the end of a run; the rest stands in errors.jsonl."""
EXTRACT_HELP = """Decode videos once, run them once through frozen backbones, and commit their tokens to a cache.

Keys of videos are their paths below the folder that you name. A manifest.csv has a column path (or video, file), and may
have key, start and end (seconds); its paths are relative to itself.

Run the same command again to resume: what is committed is skipped. Run it on several machines over a shared folder to
divide the work. Exit code 0: all done, 4: some videos failed (see errors.jsonl in the space) or are still in the hands of
another machine, 3: the run could not go on.

[bold]Examples[/bold]

  qle extract --videos recordings/ --cache cache --backbone tiny --fps 1
  qle extract --videos 'day*/**/*.mp4' --cache cache --backbone m2crl --weights m2crl.pth --fps 1 --gpus 0,1
  qle extract --videos list.csv --cache cache --backbone openai/clip-vit-base-patch16 --grid 7 --dry-run
"""


def extract(
    inputs: Annotated[list[str] | None, typer.Argument(help="More videos: folders, globs, manifests or files.")] = None,
    videos: Annotated[list[str] | None, typer.Option(help="Folder, glob, manifest.csv or file; may be repeated.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of the cache; made if missing. Default: $QLE_CACHE.")] = None,
    backbone: Annotated[list[str] | None, typer.Option(help="tiny, m2crl, or a Hugging Face id or folder; repeatable.")] = None,
    weights: Annotated[list[Path] | None, typer.Option(help="Checkpoint, one for each backbone that needs one.")] = None,
    weights_entry: Annotated[str | None, typer.Option(help="teacher or student of a training file; default teacher.")] = None,
    num_heads: Annotated[int | None, typer.Option(help="Attention heads, for files whose heads are not 64 wide.")] = None,
    fps: Annotated[str | None, typer.Option(help="Rows per second of video, or 'native' for every frame. \\[default: 1]")] = None,
    stride: Annotated[int | None, typer.Option(help="Every Nth frame instead of --fps.")] = None,
    context: Annotated[str | None, typer.Option(help="Clips of video backbones: centre, tile or single.")] = None,
    resize: Annotated[str | None, typer.Option(help="squash, shorter-crop or letterbox; default as the backbone has it.")] = None,
    crop_borders: Annotated[bool, typer.Option("--crop-borders", help="Cut black borders, found once for each video.")] = False,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels of what the backbone sees.")] = None,
    tokens: Annotated[str, typer.Option(help="patch (maps and pooled vectors) or frame (pooled vectors only).")] = "patch",
    grid: Annotated[int | None, typer.Option(help="Mean-pool the patch map to GRID x GRID.")] = None,
    dtype: Annotated[str, typer.Option(help="Stored numbers: float16, bfloat16, float32 or int8.")] = "float16",
    compute_dtype: Annotated[str, typer.Option(help="Of the forward pass: auto, float32, bfloat16, float16.")] = "auto",
    compile_: Annotated[bool, typer.Option("--compile", help="Compile the backbone: slower start, faster passes.")] = False,
    store: Annotated[str, typer.Option(help="zarr or hdf5.")] = "zarr",
    gpus: Annotated[str | None, typer.Option(help="Numbers of CUDA devices, e.g. 0,1: one process each.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1...; with commas: one process each.")] = "auto",
    workers: Annotated[int | None, typer.Option(help="Decode processes for each device.")] = None,
    batch: Annotated[int | None, typer.Option(help="Frames in a forward pass.")] = None,
    decoder: Annotated[str, typer.Option(help="auto or pyav.")] = "auto",
    decode_timeout: Annotated[float, typer.Option(help="Seconds without a frame after which a decoder is given up.")] = 120,
    root: Annotated[Path | None, typer.Option(help="Folder that keys are relative to.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N videos.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try videos again that failed before.")] = False,
    keep_partial: Annotated[bool, typer.Option("--keep-partial", help="Commit what is there of truncated files.")] = False,
    keep_damaged: Annotated[bool, typer.Option("--keep-damaged", help="Rows of damaged frames count as valid.")] = False,
    no_fsync: Annotated[bool, typer.Option("--no-fsync", help="Skip fsync, for scratch disks.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Estimate frames, bytes and time; write nothing.")] = False,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:  # fmt: skip
    from qle.backbones import check_request
    from qle.extract.request import ExtractRequest, TokenOptions

    request = ExtractRequest(
        inputs=(*(inputs or ()), *(videos or ())),
        cache=cache_folder(cache),
        backbones=_backbones(
            backbone or [], weights or [], context=context, resize=resize, crop_borders=crop_borders,
            image_size=image_size, weights_entry=weights_entry, num_heads=num_heads, compute_dtype=compute_dtype,
            compile=compile_,
        ),
        sampling=_sampling(fps, stride),
        tokens=TokenOptions(
            tokens=_choice("tokens", tokens, "patch", "frame"), grid=grid,
            dtype=_choice("dtype", dtype, "float16", "bfloat16", "float32", "int8"),
        ),
        devices=_devices(gpus, device),
        root=root, store=_choice("store", store, "zarr", "hdf5"), decoder=decoder, num_workers=workers,
        batch_frames=batch, limit=limit, retry_failed=retry_failed or keep_partial, keep_partial=keep_partial,
        keep_damaged=keep_damaged, durability="none" if no_fsync else "full",
        stall_limit_s=decode_timeout,
    )  # fmt: skip
    for wanted in request.backbones:
        check_request(wanted)
    if dry_run:
        from qle.extract.estimate import estimate

        plan = estimate(request)
        console.print_json(asdict(plan)) if json else _show_estimate(plan)
        return
    from qle.extract.run import run

    with ExtractProgress(is_quiet=quiet) as progress:
        summary = run(request, progress.update)
    console.print_json(summary.to_json()) if json else _show_summary(summary)
    raise typer.Exit(summary.exit_code)


def _choice(flag: str, value: str, *choices: str) -> Any:
    if value not in choices:
        raise ConfigError(f"--{flag} {value}: choose one of {', '.join(choices)}")
    return value


def _sampling(fps: str | None, stride: int | None) -> Any:
    from qle.extract.sampling import Sampling

    if stride is not None and fps is not None:
        raise ConfigError(f"--fps {fps} and --stride {stride}: choose one of the two")
    if stride is not None:
        return Sampling(mode="stride", stride=stride)
    if fps == "native":
        return Sampling(mode="native")
    try:
        return Sampling(mode="fps", fps=float(fps or "1"))
    except ValueError as error:
        raise ConfigError(f"--fps {fps}: expected a number or 'native'") from error


def _devices(gpus: str | None, device: str) -> tuple[str, ...]:
    if gpus is None:
        return tuple(part.strip() for part in device.split(",") if part.strip())
    numbers = [part.strip() for part in gpus.split(",") if part.strip()]
    if not all(number.isdigit() for number in numbers):
        raise ConfigError(f"--gpus {gpus}: expected numbers with commas between them, e.g. 0,1")
    return tuple(f"cuda:{number}" for number in numbers)


def _backbones(names: list[str], weights: list[Path], **options: Any) -> tuple[Any, ...]:
    from qle.backbones import KNOWS_CLIPS, BackboneRequest, needs_weights

    options["weights_entry"] = options["weights_entry"] and _choice(
        "weights-entry", options["weights_entry"], "teacher", "student"
    )
    options["context"] = options["context"] and _choice("context", options["context"], "centre", "tile", "single")
    options["resize"] = options["resize"] and _choice(
        "resize", options["resize"], "squash", "shorter-crop", "letterbox"
    )
    _choice("compute-dtype", options["compute_dtype"], "auto", "float32", "bfloat16", "float16")
    remaining = list(weights)
    requests = []
    for name in names:
        file = remaining.pop(0) if remaining and needs_weights(name) else None
        # Beside a video backbone an image backbone shares the run, not the context.
        mine = options if len(names) == 1 or name in KNOWS_CLIPS else options | {"context": None}
        requests.append(BackboneRequest(name=name, weights=file, **mine))
    if remaining:
        raise ConfigError(f"--weights {remaining[0]}: none of the backbones {', '.join(names)} takes it")
    return tuple(requests)


def _show_summary(summary: Any) -> None:
    columns = ["space", *(f"#{state}" for state in summary.spaces[0].states)]
    console.table(columns, [[space.space, *space.states.values()] for space in summary.spaces])
    console.print_text(
        f"{console.format_count(summary.rows_written)} rows written in {console.format_duration(summary.seconds)}"
        + (f" ({summary.rows_per_s:,.0f} rows/s, {summary.binding}-bound)" if summary.rows_written else "")
    )
    for space in summary.spaces:
        for key, faults in list(space.faults.items())[:MOST_FAILURES]:
            console.print_text(f"not whole  {key}: {faults}")
        for key, reason in list(space.failures.items())[:MOST_FAILURES]:
            console.print_text(f"failed  {key}: {reason}")
        if space.failures:
            console.print_text(
                f"all {len(space.failures)} failures: {Path(summary.cache, space.space, 'errors.jsonl')}; "
                "try them again with --retry-failed"
            )


def _show_estimate(plan: Any) -> None:
    facts = {
        "videos": f"{plan.num_pending} of {plan.num_videos} to do ({plan.num_probed} probed, {len(plan.unreadable)} unreadable)",
        "video time": console.format_duration(plan.hours * 3600),
        "rows": console.format_count(plan.rows),
        "frames to decode": console.format_count(plan.frames_decoded),
    }
    for space, size in plan.bytes_written.items():
        facts[f"bytes of {space}"] = console.format_bytes(size)
    facts |= {
        "decode": f"{plan.decode_rows_per_s:,.1f} rows/s",
        "forward": f"{plan.forward_rows_per_s:,.1f} rows/s",
        "time": f"about {console.format_duration(plan.seconds)}, {plan.binding}-bound",
    }
    console.facts(facts)
    for key, reason in plan.unreadable.items():
        console.print_text(f"unreadable  {key}: {reason}")
