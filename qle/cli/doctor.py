"""`qle doctor`: checks whether this machine, a cache folder or a backbone will work, and shows what is missing."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from qle.cli import console
from qle.cli.options import Json


def doctor(
    cache: Annotated[Path | None, typer.Option(help="Also test the file system of this cache.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Only: will this one work? A name, id, folder or file.")] = None,
    json: Json = False,
) -> None:
    """What this machine has: devices, decoders, weights folders, disks; each line with a fix where it falls short.

    With --backbone: loads that one as extract would and encodes one clip of noise. Exit code 3 where something is missing.

    [bold]Examples[/bold]

      qle doctor --cache /data/cache

      qle doctor --backbone openai/clip-vit-base-patch16
    """
    from qle.cli.checks import checks

    looked_at = checks(cache, backbone)
    console.print_json([asdict(check) for check in looked_at]) if json else console.show_checks(looked_at)
    raise typer.Exit(3 if any(check.status == "fail" for check in looked_at) else 0)
