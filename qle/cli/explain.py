"""`qle explain`: parses, then either has answers explained (report, pictures, film) or tests whether explanations are true."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qle.cli import console
from qle.cli.progress import StepProgress
from qle.errors import ConfigError, QleError
from qle.outputs import FILM_SUFFIXES, MEASURES_SUFFIXES, REPORT_SUFFIXES, check_output
from qle.runtime import cache_folder, prepare_cpu

if TYPE_CHECKING:
    from qle.explain.faithfulness import Faithfulness

EXPLAIN_HELP = """Show why a query was found: where in the pictures, and which moments spoke for it; or test such explanations.

With --query: a report (one HTML file that works offline), pictures of the best frames with their relevance painted on, and a
film of the whole video. Yellow speaks for the query, blue against it, on one scale for all frames of a query.

With --faithfulness: do maps point at the thing (annotations with masks or boxes), does the score depend on the cells that
they mark, do they change with the query, the picture and the weights? Every number stands beside what a guess reaches.

[bold]Examples[/bold]

  qle explain --checkpoint run --cache cache --video-id case1 --query "a green polyp" --report case1.html

  qle explain --checkpoint run --cache cache --video-id case1 --query "a green polyp" --overlay-video case1.mp4

  qle explain --faithfulness --checkpoint run --cache cache --annotations test.jsonl --out measures.json
"""


def explain(
    checkpoint: Annotated[Path, typer.Option(help="Folder of the run, as qle train-heads made it.")],
    cache: Annotated[Path | None, typer.Option(help="Cache with the videos. Default: $QLE_CACHE.")] = None,
    query: Annotated[list[str] | None, typer.Option(help="What to look for, in words; may be repeated.")] = None,
    video_id: Annotated[list[str] | None, typer.Option(help="Only this cached video, by key or stem; may be repeated.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report as one HTML file that works offline.")] = None,
    heatmaps: Annotated[Path | None, typer.Option(help="Folder for pictures of the best frames with their relevance.")] = None,
    overlay_video: Annotated[Path | None, typer.Option(help="MP4 of one video with its relevance for one query.")] = None,
    frames: Annotated[int, typer.Option(help="Pictures of a query in a video.")] = 6,
    faithfulness: Annotated[bool, typer.Option("--faithfulness", help="Test explanations against annotations.")] = False,
    annotations: Annotated[Path | None, typer.Option(help="With --faithfulness: JSONL with masks or boxes.")] = None,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Leave out annotations of videos not cached.")] = False,
    max_rows: Annotated[int, typer.Option(help="With --faithfulness: rows that are tested, over all annotations.")] = 400,
    seed: Annotated[int, typer.Option(help="Of what is drawn at random: orders, other queries, fresh weights.")] = 0,
    out: Annotated[Path | None, typer.Option(help="With --faithfulness: write the measures there as JSON.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1...")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:  # fmt: skip
    from qle.runs.load import check_run

    root = cache_folder(cache)
    written = (
        ("--out", out, MEASURES_SUFFIXES), ("--report", report, REPORT_SUFFIXES), ("--heatmaps", heatmaps, None),
        ("--overlay-video", overlay_video, FILM_SUFFIXES),
    )  # fmt: skip
    read = [] if annotations is None else [annotations]
    for option, path, suffixes in written:
        check_output(option, path, inputs=read, folders=[checkpoint, root], suffixes=suffixes)
    if overlay_video is not None and overlay_video.is_file():
        check_output("--overlay-video", overlay_video, inputs=_films_of(root), suffixes=FILM_SUFFIXES)
    if faithfulness:
        if annotations is None or query or report or heatmaps or overlay_video:
            raise ConfigError(
                "--faithfulness tests annotations: pass --annotations FILE and neither --query nor outputs"
            )
        check_run(checkpoint)
        prepare_cpu(console.note)
        _faithfulness(
            checkpoint, root, annotations, device=device, quiet=quiet, as_json=json, max_rows=max_rows, seed=seed,
            allow_missing=allow_missing, out=out,
        )  # fmt: skip
        return
    if out is not None:
        raise ConfigError("--out is for --faithfulness; pictures go to --report, --heatmaps or --overlay-video")
    if not query or annotations is not None:
        raise ConfigError('what is to be explained? pass --query "..." (or --faithfulness with --annotations FILE)')
    if report is None and heatmaps is None and overlay_video is None:
        raise ConfigError("nothing to write: pass --report FILE, --heatmaps FOLDER or --overlay-video FILE")
    if overlay_video is not None and (len(query) > 1 or len(video_id or ()) != 1):
        raise ConfigError("--overlay-video shows one query in one video: pass one --query and one --video-id")
    check_run(checkpoint)
    prepare_cpu(console.note)
    wrote: dict[str, Any] = {}
    exit_code = 0
    if report is not None or heatmaps is not None:
        wrote, exit_code = _answers(checkpoint, root, query, video_id or [], report, heatmaps, frames, device, quiet)
    if overlay_video is not None:
        wrote |= _film(checkpoint, root, query[0], (video_id or [""])[0], overlay_video, device, quiet)
    console.print_json(wrote) if json else console.facts(wrote)
    raise typer.Exit(exit_code)


def _films_of(cache: Path) -> Iterator[Path]:
    """All that the cache was extracted from: a film that is written may be one of them, asked about or not."""
    from qle.cache.reader import open_cache

    opened = open_cache(cache)
    for space in map(opened.space, opened.spaces):
        for key in space:
            try:
                yield Path(space.video(key).record.source.path)
            except QleError:  # damaged: whoever reads it will say so
                continue


def _answers(
    checkpoint: Path, cache: Path, queries: list[str], video_ids: list[str], report: Path | None, heatmaps: Path | None,
    frames: int, device: str, quiet: bool,
) -> tuple[dict[str, Any], int]:  # fmt: skip
    """The same as of `qle localize`, without the list of moments: what was written, and 4 where some videos failed."""
    from qle.localize.request import LocalizeRequest
    from qle.localize.run import localize
    from qle.outputs import one_line
    from qle.types import Query

    request = LocalizeRequest(
        checkpoint=checkpoint, queries=tuple(Query(text=text) for text in queries), cache=cache,
        video_ids=tuple(video_ids), device=device, heatmaps=heatmaps, report=report, num_frames=frames,
    )  # fmt: skip
    with StepProgress("rows", is_quiet=quiet) as progress:
        result = localize(request, progress.update)
    for line in [*(f"failed  {name}: {reason}" for name, reason in result.failures.items()), *result.notes]:
        console.note(one_line(line))
    pictures = {} if heatmaps is None else {"heatmaps": str(heatmaps), "pictures": len(result.pictures)}
    return (pictures if report is None else {"report": str(report)} | pictures), result.exit_code


def _film(
    checkpoint: Path, cache: Path, query: str, video_id: str, path: Path, device: str, quiet: bool
) -> dict[str, Any]:
    from qle.explain.check import open_run
    from qle.localize.film import overlay_film

    opened = open_run(checkpoint, cache, device)
    with StepProgress("drew", is_quiet=quiet) as progress:
        film = overlay_film(opened, opened.space.video(video_id), query, path, progress.update)
    return {
        "overlay video": str(film.path), "frames": film.num_frames, "fps": round(film.fps, 3),
        "speed": round(film.speed, 3), "full colour at": round(film.scale, 4),
    }  # fmt: skip


def _faithfulness(
    checkpoint: Path, cache: Path, annotations: Path, *, device: str, quiet: bool, as_json: bool, max_rows: int, seed: int,
    allow_missing: bool, out: Path | None,
) -> None:  # fmt: skip
    from qle.explain.check import check_faithfulness, open_run
    from qle.outputs import write_json

    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}")

    opened = open_run(checkpoint, cache, device)
    with StepProgress("tested", is_quiet=quiet) as progress:
        report = check_faithfulness(
            opened, annotations, max_rows=max_rows, seed=seed, allow_missing=allow_missing, on_progress=progress.update
        )
    if out is not None:
        write_json(out, report.to_json())
    if as_json:
        console.print_json(report.to_json())
        return
    console.table(["measure", "#value", "#95 %", "better", "beside it", "what it is"], _rows(report))
    console.print_text(
        f"{report.num_rows:,} rows of {report.num_annotations:,} annotations in {report.num_videos:,} videos; masking tests the "
        "head, not the backbone, whose tokens have already mixed"
    )


def _rows(report: "Faithfulness") -> list[tuple[str, ...]]:
    return [
        (
            measure.name,
            f"{measure.value:.3f}",
            "" if measure.low is None else f"{measure.low:.3f} .. {measure.high:.3f}",
            measure.better,
            ", ".join(f"{name} {value:.3f}" for name, value in measure.floors.items()),
            measure.meaning,
        )
        for measure in report.measures
    ]
