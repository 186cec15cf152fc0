"""`qle eval`: parses, builds a request, calls one function, shows the result."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qle.cli import console
from qle.cli.progress import StepProgress
from qle.errors import ConfigError
from qle.outputs import MEASURES_SUFFIXES, check_output
from qle.runtime import cache_folder, prepare_cpu

if TYPE_CHECKING:
    from qle.eval.report import Report
    from qle.eval.request import EvaluatedRun, Evaluation

EVAL_HELP = """Measure trained runs on annotated videos of a cache, or a file of predictions on annotations alone.

Beside each number stand its 95 % interval (resampling videos) and its floors: what the same metric gives without looking.
Thresholds come from the run; nothing is fitted to what is measured.

[bold]--protocol[/bold], by default what the head is for (rows, moments, retrieval), of a file moments:

  rows: every row of a video, moments cut from them, calibration, absent queries

  moments: ranked moments: R1, R5, mAP, mIoU, by length; highlights; absent queries

  charades: R1 and R5 at overlaps 0.1 to 0.7, mIoU, as for Charades-STA

  qvhighlights: exactly what the program of QVHighlights prints; where that errs, also without the fault. What that program
  measures by accident (repeated queries, reversed windows) is an error, unless --published

  retrieval: which video a text is about, and the other way round, ties by chance

  corpus: moments of all annotated videos in one list: --retriever finds the videos, --checkpoint the moments in them (see
  qle search); each stage alone too, and --fit chooses how much either counts, on validation annotations

--predictions measures a JSONL file in the QVHighlights submission format (qid, pred_relevant_windows, and if wanted
pred_saliency_scores), as qle localize --format jsonl writes it, by moments, charades or qvhighlights: no run, no cache.

On another cache (of the same space) and annotation set than it was trained on, this is the zero-shot transfer protocol: the
report says zero_shot when neither a video nor a concept was trained on, and how many videos and concepts were.

Several --checkpoint, or a folder of --seeds, give mean and deviation over the runs.

[bold]Examples[/bold]

  qle eval --checkpoint runs/first --cache cache --annotations test.jsonl
  qle eval --checkpoint runs/first --cache cache --annotations test.jsonl --per-query --out report.json
  qle eval --checkpoint runs/seed-0 --checkpoint runs/seed-1 --cache cache --annotations test.jsonl --json
  qle eval --checkpoint runs/qd --cache qvh --annotations highlight_val_release.jsonl --protocol qvhighlights
  qle eval --checkpoint runs/qd --retriever runs/tmass --cache cache --annotations val.jsonl --protocol corpus --fit fusion.json
  qle eval --predictions hl_val_submission.jsonl --annotations highlight_val_release.jsonl --protocol qvhighlights
  qle eval --predictions charades.jsonl --annotations charades_sta_test.txt --protocol charades
"""


_LEAKING = "Retrieval: also by the score that T-MASS published, which knows the answer: no measure."
_PUBLISHED = "qvhighlights: measure whatever its program measures, as it does."
_ALLOW_MISSING = "Leave out videos that are not cached. With --predictions: what is missing there is a miss."


def eval_(
    annotations: Annotated[Path, typer.Option(help="What is true (JSONL, see qle prepare).")],
    checkpoint: Annotated[list[Path] | None, typer.Option(help="Folder of a run; may be repeated.", show_default=False)] = None,
    predictions: Annotated[Path | None, typer.Option(help="A file of predictions instead of runs.")] = None,
    protocol: Annotated[str | None, typer.Option(help="rows, moments, charades, qvhighlights, retrieval or corpus.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of the cache. Default: $QLE_CACHE.", show_default=False)] = None,
    space: Annotated[str | None, typer.Option(help="The space, by a beginning of its name. \\[default: that of the run]")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the whole report there as JSON.")] = None,
    per_query: Annotated[bool, typer.Option("--per-query", help="Also a line for each query (rows).")] = False,
    bootstrap: Annotated[int, typer.Option(help="Resamples for the intervals; 0 for none.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples, and of random floors.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help=_ALLOW_MISSING)] = False,
    published: Annotated[bool, typer.Option("--published", help=_PUBLISHED)] = False,
    dsl: Annotated[bool, typer.Option("--dsl", help="Retrieval: also with the dual softmax over all texts.")] = False,
    published_leaking_score: Annotated[bool, typer.Option("--published-leaking-score", help=_LEAKING)] = False,
    retriever: Annotated[Path | None, typer.Option(help="Corpus: folder of a run that ranks videos.")] = None,
    top_videos: Annotated[int, typer.Option(help="Corpus: videos in which moments are looked for.")] = 20,
    shortlist: Annotated[int, typer.Option(help="Corpus: videos that are compared exactly.")] = 1000,
    fusion: Annotated[Path | None, typer.Option(help="Corpus: fitted weights of both stages.")] = None,
    fit: Annotated[Path | None, typer.Option(help="Corpus: fit them on these annotations, and write them there.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON (qvhighlights: what its program prints).")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:  # fmt: skip
    folder = cache_folder(cache) if checkpoint or cache is not None else None
    for option, path in (("--out", out), ("--fit", fit)):
        check_output(
            option, path, inputs=[path for path in (annotations, predictions, fusion) if path is not None],
            folders=[given for given in (*(checkpoint or ()), retriever, folder) if given is not None],
            suffixes=MEASURES_SUFFIXES,
        )  # fmt: skip

    from qle.eval.request import EvaluationRequest
    from qle.eval.run import evaluate_runs, run_folders
    from qle.outputs import write_json
    from qle.runs.load import check_run

    request = EvaluationRequest(
        checkpoints=tuple(checkpoint or ()), cache=folder, predictions=predictions, protocol=protocol, space=space,
        annotations=annotations, allow_missing=allow_missing, num_bootstrap=bootstrap, seed=seed, device=device,
        with_dsl=dsl, published_leaking_score=published_leaking_score, retriever=retriever, top_videos=top_videos,
        shortlist=shortlist, fusion=fusion, fit=fit, published=published,
    )  # fmt: skip
    for option, path in (("--out", out), ("--fit", fit)):
        if path is not None and not path.parent.is_dir():
            raise ConfigError(f"{option} {path}: there is no folder {path.parent}")
    for run_folder in (*(run for path in request.checkpoints for run in run_folders(path)), retriever):
        if run_folder is not None:
            check_run(run_folder)
    if request.checkpoints or request.retriever:  # files of predictions are measured without torch
        prepare_cpu(console.note)
    with StepProgress("scored", is_quiet=quiet) as progress:
        evaluation = evaluate_runs(request, progress.update)
    if out is not None:
        write_json(out, evaluation.to_json())
    _note(evaluation)
    if per_query and not any(run.report.per_query for run in evaluation.runs):
        console.note(f"--per-query: the protocol {evaluation.protocol} has no lines of queries, rows has")
    if json:
        console.print_json(evaluation.printed(with_queries=per_query))
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
        new, counts = run.novelty, run.report.counts
        if new is not None and new.num_trained_videos:
            console.note(
                f"{run.folder}: {new.num_trained_videos} of the {counts['videos']} videos were trained on: "
                "the numbers are too hopeful"
            )
        elif new is not None and new.num_val_videos:
            console.note(
                f"{run.folder}: its step and thresholds were chosen on {new.num_val_videos} of the {counts['videos']} videos: "
                "the numbers are too hopeful"
            )
        for name, told in _TOLD.items():
            if counts.get(name):
                first = run.report.settings.get("odd_rows", {}).get(name)
                console.note(f"{run.folder}: {counts[name]:,} {told}{f'; the first: {first}' if first else ''}")


_TOLD = {
    "videos_not_localized": "videos have no moments (not in the spaces of the run, or damaged): misses",
    "videos_of_retriever": "of the videos were trained on by the retriever: the numbers are too hopeful",
    "queries_fitted_on": "queries were fitted on (--fit): the chain is too hopeful",
    "unanswered": "annotated queries have no prediction",
    "repeated_rows": "rows are about a query that another row is about too: the last counts, and mAP takes the windows of all",
    "unasked": "predictions are about queries that are not annotated, and left out",
    "absent_left_out": "queries never happen, and are left out: this protocol has no such",
    "unsorted_lists": "lists of windows are not by falling score: --protocol moments orders them by score, charades takes the "
    "order of the file, and so does the R1 of qvhighlights (its mAP orders by score)",
    "windows_behind_the_end": "predictions have windows that begin behind the end of the video",
    "other_videos": "predictions name another video than the annotation with their qid",
    "wrong_saliency_lengths": "saliency lists have another number of clips than the video",
    "reversed_spans": "spans end before they start, and overlap nothing",
    "queries_with_clips_without_score": "queries have fewer saliency scores than clips; officially these count 0, "
    "in front of all that are negative (without_faults: last)",
}
"""Counts of a report that change how its numbers are to be read."""


def _show(run: "EvaluatedRun", per_query: bool) -> None:
    report = run.report
    counts = report.counts
    kind = ""
    if run.novelty is not None:
        kind = (
            "; zero-shot: no video and no concept was trained on"
            if run.novelty.zero_shot
            else f"; {run.novelty.unseen_concepts:.0%} of the annotations have concepts that were not trained on"
        )
    absent = f", {counts['absent_pairs']:,} of them absent" if "absent_pairs" in counts else ""
    rows = f", {counts['rows']:,} rows" if "rows" in counts else ""
    console.print_text(
        f"{run.folder}: {counts['pairs']:,} (video, query) pairs{absent}, {counts['videos']:,} videos{rows}{kind}"
    )
    names = report.floor_names
    floors = [f"#{name.replace('_', ' ')}" for name in names]
    console.table(["metric", "#value", "95 %", *floors], report.rows(names))
    if per_query and report.per_query:
        _show_queries(report)
    skipped = {name: count for name, count in counts.items() if name.startswith("skipped") and count}
    if skipped:
        console.facts({name.replace("_", " "): f"{count:,}" for name, count in skipped.items()})
    if made := _how_moments_were_made(report):
        console.facts(made)


def _how_moments_were_made(report: "Report") -> dict[str, str]:
    """What was done to the spans of a run before they were measured, since published numbers hang on it."""
    ranking = report.settings.get("ranking")
    if ranking is None:
        return {}
    rounded = f"rounded to {ranking['round_s']:g} s" if ranking["round_s"] else "not rounded"
    suppressed = (
        f"of overlaps above {ranking['nms_tiou']:g} the best" if ranking["nms_tiou"] < 1 else "overlapping ones kept"
    )
    return {"spans": f"clipped to the video, {rounded}, {suppressed}, at most {ranking['max_moments']}"}


def _show_queries(report: "Report") -> None:
    from qle.eval.report import number_text

    columns = [
        "query", "#videos", "#with it", "#base rate", "#AUROC", "#AP", "#F1", "#R1@0.5", "#mIoU", "#false alarms",
    ]  # fmt: skip
    rows = [
        (
            row.query, row.num_videos, row.num_present,
            *map(number_text, (row.base_rate, row.auroc, row.average_precision, row.f1,
                               row.r1_at_05, row.miou, row.false_alarm_rate)),
        )
        for row in report.per_query
    ]  # fmt: skip
    console.table(columns, rows)
