"""What the commands of `qle cache` share: options, exit codes, and how a report is shown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from qle.cli import console
from qle.cli.options import examples
from qle.errors import ConfigError

CacheArgument = Annotated[
    Path | None, typer.Argument(help="Folder of the cache. Default: $QLE_CACHE.", show_default=False)
]
Spaces = Annotated[
    list[str] | None, typer.Option("--space", help="Only this space, by any beginning of its name; may be repeated.")
]

DAMAGE_EXIT = 3
SOME_FAILED_EXIT = 4


def example(*lines: str) -> str:
    """The end of a help text of `qle cache`."""
    return examples("qle cache", *lines)


def choice(flag: str, value: str | None, choices: tuple[str, ...]) -> Any:
    if value is not None and value not in choices:
        raise ConfigError(f"--{flag} {value}: choose one of {', '.join(choices)}")
    return value


def few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def show_report(report: Mapping[str, Any], summary: str, *, as_json: bool) -> None:
    """The summary, and below it the videos that were left out because they are damaged."""
    if as_json:
        console.print_json(report)
        return
    console.print_text(summary)
    if left_out := report.get("damaged") or report.get("failed"):
        console.table(["left out", "why"], left_out.items())
