"""`qle demo`: runs the main job on made-up videos and shows what was aimed at beside what was reached."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qle.cli import console
from qle.cli.options import Json

if TYPE_CHECKING:
    from qle.synthetic.demo import DemoResult

DEMO_HELP = """Run the main job on made-up videos, as the commands that you would type for your own, each shown before it runs.

Videos are made, extracted with the built-in backbone and trained on; then queries are asked that happen, that do not, and
in words that training never saw. The table at the end has what is aimed at beside what was reached and what guesses reach.
Run the same command again to go on where it stopped.

[bold]Examples[/bold]

  qle demo

  qle demo /tmp/small --videos 24 --steps 200
"""


def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Where videos, cache, run, numbers and report go.")] = Path("demo"),
    videos: Annotated[int | None, typer.Option(help="Videos to train on; fewer, and the other splits shrink along.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of training.  \\[default: as in the preset qle/demo]")] = None,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:  # fmt: skip
    from qle.synthetic.demo import NUM_TRAIN, DemoConfig, run_demo

    program = context.find_root().command

    def run_line(line: Sequence[str]) -> None:
        if code := program.main([*line, *(["--quiet"] if quiet else [])], standalone_mode=False):
            raise typer.Exit(code)

    # With --json the results of the stages are no result of this command.
    with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
        config = DemoConfig(num_videos=NUM_TRAIN if videos is None else videos, steps=steps)
        result = run_demo(folder, config, run_line, lambda line: console.print_plain(f"{line}\n"))
    console.print_json(result.to_json()) if json else _show_demo(result)


def _show_demo(result: "DemoResult") -> None:
    rows = [
        (
            measure.aim.name,
            f"{measure.value:.3f}",
            "" if measure.interval is None else f"{measure.interval[0]:.3f} - {measure.interval[1]:.3f}",
            measure.aim.goal,
            "yes" if measure.is_met else "no",
            ", ".join(f"{name} {value:.3f}" for name, value in measure.floors.items()),
        )
        for measure in result.measured
    ]
    num_met = sum(measure.is_met for measure in result.measured)
    title = f"{num_met} of {len(rows)} aims are met (held-out videos, text encoder {result.text_encoder})"
    console.print_plain("\n")
    console.table(["held out", "#measured", "95 %", "#aim", "met", "guesses"], rows, title=title)
    stages = {name: console.format_duration(seconds) for name, seconds in result.seconds.items()}
    whole = {"in all": console.format_duration(sum(result.seconds.values()))}
    console.facts(stages | whole | {"run": result.run, "report": f"{result.report} (open it in a browser)"})
