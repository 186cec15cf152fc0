"""What the commands of `qle prepare` share: their options, and how what was written is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qle.cli import console
from qle.cli.options import examples
from qle.errors import ConfigError

if TYPE_CHECKING:
    from qle.data.annotations import Annotation
    from qle.data.readlog import ReadLog

Root = Annotated[Path, typer.Argument(help="Folder of the dataset.", show_default=False)]
Source = Annotated[Path, typer.Argument(help="The file to read.", show_default=False)]
Sources = Annotated[list[Path], typer.Argument(help="The files to read, each a part.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", help="Folder for the annotation files; made if missing.")]
OutFile = Annotated[Path, typer.Option("--out", help="The file to write (.jsonl), or a folder for one.")]
OutParts = Annotated[Path, typer.Option("--out", help="The file to write (.jsonl), or a folder for one a part.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave wrong rows out and list them, instead of stopping.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")]

MOST_SHOWN = 10
"""Wrong rows that are listed on the screen; --json has all."""


def example(*lines: str) -> str:
    """The end of a help text of `qle prepare`."""
    return examples("qle prepare", *lines)


def prepare_files(
    name: str, sources: Sequence[Path], out: Path, *, skip_bad: bool, overwrite: bool, as_json: bool, **options: Any
) -> None:
    """Read each file with the reader of that name (`options` are its own), and write a part for each, named after it."""
    from qle.data.readers import reader
    from qle.data.readlog import ReadLog

    parts: dict[str, Sequence[Annotation]] = {}
    told = ReadLog()
    for source in sources:
        if source.stem in parts:
            raise ConfigError(f"two files are called {source.stem}: their parts would be one file\nprepare them apart")
        log = ReadLog(skip_bad=skip_bad)
        parts[source.stem] = reader(name)(source, log, **options)
        told.notes += log.notes if len(sources) == 1 else [f"{source}: {note}" for note in log.notes]
        told.skipped += log.skipped
    write(out, parts, told, overwrite=overwrite, as_json=as_json)


def write(
    out: Path, parts: "Mapping[str, Sequence[Annotation]]", log: "ReadLog", *, overwrite: bool, as_json: bool
) -> None:
    """The parts to files, and what they hold to the screen."""
    from qle.data.writers.parts import write_parts

    written = write_parts(out, parts, overwrite=overwrite)
    if as_json:
        console.print_json(
            {"files": [asdict(part) for part in written], "notes": log.notes, "skipped": log.skipped}
        )  # fmt: skip
        return
    rows = [
        (
            *(part.path, part.num_videos, part.num_annotations, part.num_queries, part.num_windows, part.num_absent),
            "unknown" if part.hours is None else f"{part.hours:.2f}",
        )
        for part in written
    ]
    console.table(["file", "#videos", "#annotations", "#queries", "#windows", "#absent", "#hours"], rows)
    for note in [*log.notes, *log.skipped[:MOST_SHOWN]]:
        console.note(note)
    if unlabelled := sum(part.num_unlabelled for part in written):
        console.note(
            f"{unlabelled:,} annotations have no labels of when: moments can be neither trained nor measured with them"
        )


def positive(flag: str, value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise ConfigError(f"--{flag} {value}: expected a number above 0")
    return value
