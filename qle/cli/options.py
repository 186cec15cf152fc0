"""What commands share: options that mean the same everywhere, and how examples stand at the end of a help text."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def examples(command: str, *lines: str) -> str:
    """The end of a help text: each line is what follows `command`."""
    return "\n\n[bold]Examples[/bold]\n\n" + "\n\n".join(f"  {command} {line}" for line in lines)
