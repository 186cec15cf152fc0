"""`qle localize`: parses, builds one LocalizeRequest, calls `localize`, shows the result in one of five formats."""

from pathlib import Path
from typing import Annotated, Any

import typer

from qle.cli import console
from qle.cli.progress import StepProgress
from qle.errors import ConfigError
from qle.outputs import MOMENTS_SUFFIXES, REPORT_SUFFIXES, check_output, format_of
from qle.runtime import cache_folder, prepare_cpu

LOCALIZE_HELP = """Find when something happens: free-text queries over cached videos or video files, with a trained run.

Every query gets its moments, best first, with calibrated scores, and the probability that it happens at all: a query that
is found nowhere is said to be absent; "none sure enough" means likely somewhere, and nowhere for sure. A video file that the
cache does not hold is extracted exactly as the run was trained (kept in --cache where given), so the answer is the same either
way. Videos may be hours long.

With --format jsonl every query has at least one window, the best guess, as evaluators need it; that it is absent is told by
pred_exist_score. Of heads that answer with spans (moment_detr and its family) jsonl holds every span; the other formats hold
one of those that overlap by more than 0.7, and none below the probability that validation found worth showing.

A file of --queries has one query a line, or JSONL with query and, if wanted, qid and vid (then only that video is asked).
Exit code 0: all searched, 4: some videos failed, or are not there (--allow-missing).

[bold]Examples[/bold]

  qle localize --checkpoint run --cache cache --query "a green polyp" --query "the grasper enters from the left"

  qle localize --checkpoint run --cache cache --video-id case1 --queries wishes.txt --format vtt --out case1.vtt

  qle localize --checkpoint run --video film.mp4 --query "bleeding" --report report.html --heatmaps pictures

  qle localize --checkpoint run --cache cache --queries val.jsonl --format jsonl --out hl_val_submission.jsonl
"""


def localize(
    checkpoint: Annotated[Path, typer.Option(help="Folder of the run, as qle train-heads made it.")],
    query: Annotated[list[str] | None, typer.Option(help="What to look for, in words; may be repeated.")] = None,
    queries: Annotated[Path | None, typer.Option(help="File of queries: one a line, or JSONL; - reads stdin.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Cache with the videos. Default: $QLE_CACHE, without --video.")] = None,
    video_id: Annotated[list[str] | None, typer.Option(help="Only this cached video, by key or stem; may be repeated.")] = None,
    video: Annotated[list[str] | None, typer.Option(help="Video file, folder, glob or manifest; may be repeated.")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder that keys of --video are relative to.")] = None,
    weights: Annotated[list[str] | None, typer.Option(help="Of the run's backbones, to extract --video; repeatable.")] = None,
    format_: Annotated[str, typer.Option("--format", help="table, json, jsonl (QVHighlights), csv or vtt.")] = "table",
    top: Annotated[int | None, typer.Option(help="Most moments of a query in a video.")] = None,
    min_score: Annotated[float, typer.Option(help="Leave out moments below this probability.")] = 0.0,
    tracks: Annotated[bool, typer.Option("--tracks", help="Put the score of every row into the JSON.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the result to this file instead of the terminal.")] = None,
    heatmaps: Annotated[Path | None, typer.Option(help="Folder for pictures of the best frames with their relevance.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report as one HTML file that works offline.")] = None,
    frames: Annotated[int, typer.Option(help="Pictures of a query in a video.")] = 6,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Skip queries about videos that are not there.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1...")] = "auto",
    precision: Annotated[str, typer.Option(help="Numbers inside the head: float32 or bfloat16.")] = "float32",
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:  # fmt: skip
    from qle.localize.backbone_check import check_backbones
    from qle.localize.moment_files import FORMATS, render
    from qle.localize.query_files import read_queries
    from qle.outputs import one_line, write_text
    from qle.runs.load import check_run
    from qle.types import Query

    kind = format_of(format_, json, out, FORMATS)
    if tracks and kind != "json":
        raise ConfigError(f"--tracks is for --format json, not for {kind}")
    root_folder = cache if video else cache_folder(cache)
    read = [Path(name) for name in (queries, *(weights or ()), *(video or ())) if name is not None]
    written = (("--out", out, MOMENTS_SUFFIXES), ("--report", report, REPORT_SUFFIXES), ("--heatmaps", heatmaps, None))
    for option, path, suffixes in written:
        folders = [folder for folder in (checkpoint, root_folder) if folder is not None]
        check_output(option, path, inputs=read, folders=folders, suffixes=suffixes)
    asked = [*(Query(text=text) for text in query or ()), *(read_queries(queries) if queries else ())]

    from qle.localize.request import LocalizeRequest

    request = LocalizeRequest(
        checkpoint=checkpoint, queries=tuple(asked), cache=root_folder,
        video_ids=tuple(video_id or ()), videos=tuple(video or ()), root=root, weights=tuple(weights or ()), device=device,
        precision=_precision(precision), top=top, min_score=min_score, heatmaps=heatmaps, report=report, out=out,
        num_frames=frames, is_one_video=kind == "vtt", keeps_all=kind == "jsonl", allow_missing=allow_missing,
    )  # fmt: skip
    check_backbones(check_run(checkpoint), request)

    from qle.localize.run import localize as run

    prepare_cpu(console.note)
    with StepProgress("rows", is_quiet=quiet) as progress:
        result = run(request, progress.update)
    text = render(
        kind, result.predictions, provenance=result.provenance, names=result.names, failures=result.failures,
        with_tracks=tracks,
    )  # fmt: skip
    if out is None:
        console.print_plain(text)
    else:
        write_text(out, text)
    for line in _notes(result, out, heatmaps, report):
        console.note(one_line(line))
    raise typer.Exit(result.exit_code)


def _precision(name: str) -> Any:
    if name not in ("float32", "bfloat16"):
        raise ConfigError(f"--precision {name}: choose float32 or bfloat16")
    return name


def _notes(result: Any, out: Path | None, heatmaps: Path | None, report: Path | None) -> list[str]:
    lines = [f"failed  {name}: {reason}" for name, reason in result.failures.items()]
    lines += result.notes
    if heatmaps is not None:
        lines.append(f"{len(result.pictures)} pictures in {heatmaps}")
    lines += [f"wrote {path}" for path in (out, report) if path is not None]
    return lines
