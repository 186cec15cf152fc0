"""`qle prepare ...`: one command a dataset. Each parses, calls one reader, and shows what was written."""

from pathlib import Path
from typing import Annotated

import typer

prepare_app = typer.Typer(
    help="Turn a dataset's own labels into annotation files (JSONL).", no_args_is_help=True, rich_markup_mode="rich"
)

Out = Annotated[Path, typer.Option("--out", help="Folder for the annotation files; made if missing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def example(*lines: str) -> str:
    """The end of a help text."""
    return "\n\n[bold]Examples[/bold]\n\n" + "\n\n".join(f"  qle prepare {line}" for line in lines)


@prepare_app.callback()
def prepare() -> None:
    """Turn a dataset's own labels into annotation files (JSONL)."""
