"""`qle eval`: parses, builds a request, calls one function, shows the result."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qle import console
from qle.errors import ConfigError
from qle.outputs import MEASURES_SUFFIXES, check_output
from qle.runtime import cache_folder

if TYPE_CHECKING:
    from qle.eval.report import Report
    from qle.evaluation import EvaluatedRun, Evaluation

EVAL_HELP = """Measure trained runs on annotated videos of a cache: rows, moments, calibration, absent queries.

Beside each number stand its 95 % interval (resampling videos) and its floors: what the same metric gives for a constant, for
the usual position in time, for how often each query happens, and for the head when it is deaf to the query. Thresholds come
from the run; nothing is fitted to what is measured.

On another cache (of the same space) and annotation set than it was trained on, this is the zero-shot transfer protocol: the
report says zero_shot when neither a video nor a concept was trained on, and how many videos and concepts were.

Several --checkpoint, or a folder of --seeds, give mean and deviation over the runs.

[bold]Examples[/bold]

  qle eval --checkpoint runs/first --cache cache --annotations test.jsonl
  qle eval --checkpoint runs/first --cache cache --annotations test.jsonl --per-query --out report.json
  qle eval --checkpoint runs/seed-0 --checkpoint runs/seed-1 --cache cache --annotations test.jsonl --json
  qle eval --checkpoint runs/first --cache charades-cache --annotations charades_sta_test.jsonl
"""


def eval_(
    checkpoint: Annotated[list[Path], typer.Option(help="Folder of a run; may be repeated.")],
    annotations: Annotated[Path, typer.Option(help="What is true (JSONL, see qle prepare).")],
    cache: Annotated[Path | None, typer.Option(help="Folder of the cache. Default: $QLE_CACHE.", show_default=False)] = None,
    space: Annotated[str | None, typer.Option(help="The space, by a beginning of its name.  [default: that of the run]")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the whole report there as JSON.")] = None,
    per_query: Annotated[bool, typer.Option("--per-query", help="Also a line for each query.")] = False,
    bootstrap: Annotated[int, typer.Option(help="Resamples for the intervals; 0 for none.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Leave out videos that are not cached.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:  # fmt: skip
    folders = [*checkpoint, cache_folder(cache)]
    check_output("--out", out, inputs=[annotations], folders=folders, suffixes=MEASURES_SUFFIXES)

    from qle.evaluation import EvaluationRequest, evaluate_runs
    from qle.runs import write_json

    request = EvaluationRequest(
        checkpoints=tuple(checkpoint), cache=cache_folder(cache), space=space, annotations=annotations,
        allow_missing=allow_missing, num_bootstrap=bootstrap, seed=seed, device=device,
    )  # fmt: skip
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}")
    with console.StepProgress("scored", is_quiet=quiet) as progress:
        evaluation = evaluate_runs(request, progress.update)
    if out is not None:
        write_json(out, evaluation.to_json())
    _note(evaluation)
    if json:
        console.print_json(evaluation.to_json(with_queries=per_query))
        return
    for run in evaluation.runs:
        _show(run, per_query)
    if len(evaluation.runs) > 1:
        rows = [(name, f"{mean:.4f}", f"{deviation:.4f}") for name, (mean, deviation) in evaluation.spread.items()]
        console.table(["metric", "#mean", "#deviation"], rows, title=f"{len(evaluation.runs)} runs")


def _note(evaluation: "Evaluation") -> None:
    """What a reader of the numbers must know."""
    if evaluation.missing:
        console.note(f"{len(evaluation.missing)} videos are not in the cache, their annotations are left out")
    for run in evaluation.runs:
        new, videos = run.novelty, run.report.counts["videos"]
        if new is not None and new.num_trained_videos:
            console.note(
                f"{run.folder}: {new.num_trained_videos} of the {videos} videos were trained on: the numbers are too hopeful"
            )
        elif new is not None and new.num_val_videos:
            console.note(
                f"{run.folder}: its step and thresholds were chosen on {new.num_val_videos} of the {videos} videos: "
                "the numbers are too hopeful"
            )


def _show(run: "EvaluatedRun", per_query: bool) -> None:
    from qle.eval.report import FLOORS

    report = run.report
    counts = report.counts
    kind = ""
    if run.novelty is not None:
        kind = (
            "; zero-shot: no video and no concept was trained on"
            if run.novelty.zero_shot
            else f"; {run.novelty.unseen_concepts:.0%} of the annotations have concepts that were not trained on"
        )
    console.print_text(
        f"{run.folder}: {counts['pairs']:,} (video, query) pairs, {counts['absent_pairs']:,} of them absent, "
        f"{counts['videos']:,} videos, {counts['rows']:,} rows{kind}"
    )
    floors = [f"#{name.replace('_', ' ')}" for name in FLOORS]
    console.table(["metric", "#value", "95 %", *floors], report.rows())
    if per_query:
        _show_queries(report)
    skipped = {name: count for name, count in counts.items() if name.startswith("skipped") and count}
    if skipped:
        console.facts({name.replace("_", " "): f"{count:,}" for name, count in skipped.items()})


def _show_queries(report: "Report") -> None:
    from qle.eval.report import shown

    columns = [
        "query", "#videos", "#with it", "#base rate", "#AUROC", "#AP", "#F1", "#R1@0.5", "#mIoU", "#false alarms",
    ]  # fmt: skip
    rows = [
        (
            row.query, row.num_videos, row.num_present,
            *map(shown, (row.base_rate, row.auroc, row.average_precision, row.f1, row.r1_at_05, row.miou, row.false_alarm_rate)),
        )
        for row in report.per_query
    ]  # fmt: skip
    console.table(columns, rows)
