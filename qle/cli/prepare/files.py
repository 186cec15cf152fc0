"""`qle prepare tacos-cg` and `qle prepare export`: whole files made out of annotations. FILE_COMMANDS has them by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from qle.cli import console
from qle.cli.options import Json, Quiet
from qle.cli.prepare.options import OutFile, Overwrite, SkipBad, Source, example, prepare_files
from qle.cli.progress import StepProgress
from qle.errors import ConfigError

LEVELS = "title,sentence,paragraph"
TACOS_CG_HELP = (
    "Queries about whole videos, for finding them. Reads the published TACoS-CG; or, with --annotations, makes such "
    "queries at several levels (title, sentence, paragraph) out of any annotations of moments, with a local instruction "
    "model of the Hugging Face library, or without --model by choosing among the sentences.\n\n"
    "Every row records how it was made. The same command again goes on where a killed one stopped." + example(
        "tacos-cg tacos_cg.json --videos train.txt --out coarse.jsonl",
        "tacos-cg --annotations tacos.jsonl --out coarse.jsonl",
        "tacos-cg --annotations tacos.jsonl --model models/qwen --levels title,sentence --out coarse.jsonl",
    )
)  # fmt: skip
EXPORT_HELP = (
    "Annotations back into the format of a dataset, for other tools: qvhighlights, qvhighlights-submission (what somebody "
    "would submit who knows the truth), lighthouse, charades-sta (with a CSV of lengths beside it), tacos, tacos-cg, "
    "activitynet, didemo, msrvtt, tvsum. What the format has no word for is told." + example(
        "export val.jsonl --to lighthouse --out val_release.jsonl",
        "export test.jsonl --to charades-sta --out charades_sta_test.txt",
    )
)  # fmt: skip


def tacos_cg(
    out: OutFile,
    source: Annotated[Path | None, typer.Argument(help="The published file to read.", show_default=False)] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="Annotations of moments (.jsonl) to make such queries from.")
    ] = None,
    videos: Annotated[
        Path | None, typer.Option(help="Only those named here, one a line; of the published file.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Folder or Hugging Face id; none: choose among sentences.")] = None,
    levels: Annotated[
        str | None, typer.Option(help="Of what is made.  \\[default: title,sentence,paragraph]", show_default=False)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Of the model: auto, cpu, cuda, cuda:1...  \\[default: auto]", show_default=False)
    ] = None,
    skip_bad: SkipBad = False,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    if (source is None) == (annotations is None):
        raise ConfigError("name either the published file to read, or --annotations to make queries from")
    if source is not None:
        if ignored := [
            f"--{name}" for name, value in (("model", model), ("levels", levels), ("device", device)) if value
        ]:
            raise ConfigError(
                f"{', '.join(ignored)}: for queries made from --annotations; the published file is only read"
            )
        prepare_files("tacos-cg", [source], out, skip_bad=skip_bad, overwrite=overwrite, as_json=json, videos=videos)
    elif annotations is not None:
        if videos is not None or skip_bad:
            raise ConfigError("--videos and --skip-bad belong to the published file, not to --annotations")
        _summarise(
            annotations, out, model, levels or LEVELS, device or "auto", overwrite=overwrite, as_json=json, is_quiet=quiet
        )  # fmt: skip


def _summarise(
    annotations: Path, out: Path, model: str | None, names: str, device: str, *, overwrite: bool, as_json: bool,
    is_quiet: bool,
) -> None:  # fmt: skip
    from qle.data.summaries.extractive import Extractive
    from qle.data.summaries.generate import write_summaries
    from qle.data.summaries.levels import Summariser, levels_of
    from qle.outputs import check_output

    levels = levels_of(names)
    path = out if out.suffix == ".jsonl" else out / f"{annotations.stem}_summaries.jsonl"
    check_output("--out", path, inputs=[annotations], suffixes=None)
    summariser: Summariser = Extractive()
    if model is not None:
        from qle.hub import check_available
        from qle.runtime import resolve_device

        check_available(model)
        from qle.data.summaries.language_model import LanguageModel

        summariser = LanguageModel(model, resolve_device(device))
    with StepProgress("summarised", is_quiet=is_quiet) as progress:
        result = write_summaries(
            annotations, path, summariser, levels, overwrite=overwrite, on_progress=progress.update
        )  # fmt: skip
    facts = {
        "path": result.path, "num_videos": result.num_videos, "num_rows": result.num_rows, "num_made": result.num_made,
        "levels": {level.name: dict(summariser.identity(level)) for level in levels}, "notes": result.notes,
    }  # fmt: skip
    if as_json:
        console.print_json(facts)
        return
    console.print_text(
        f"{result.num_rows:,} queries about {result.num_videos:,} videos, {result.num_made:,} of them made now: {result.path}"
    )
    for note in result.notes:
        console.note(note)


def export(
    source: Source,
    to: Annotated[str, typer.Option("--to", help="The format.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    from dataclasses import asdict

    from qle.data.annotations import read_annotations
    from qle.data.readlog import ReadLog
    from qle.data.writers.export import export as export_to
    from qle.outputs import check_output

    check_output("--out", out, inputs=[source], suffixes=None)
    log = ReadLog()
    annotations = read_annotations(source, allow_unlabelled=True, log=log)
    written = export_to(out, annotations, to, overwrite=overwrite)
    notes = [*log.notes, *written.notes]
    if json:
        console.print_json(asdict(written) | {"notes": notes})
        return
    left_out = f", {written.num_left_out:,} left out" if written.num_left_out else ""
    console.print_text(f"{written.num_annotations:,} annotations{left_out}: {', '.join(map(str, written.paths))}")
    for note in notes:
        console.note(note)


FILE_COMMANDS: dict[str, tuple[Callable[..., Any], str]] = {
    "tacos-cg": (tacos_cg, TACOS_CG_HELP),
    "export": (export, EXPORT_HELP),
}
