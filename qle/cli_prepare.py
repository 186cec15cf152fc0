"""`qle prepare ...`: one command a dataset. Each parses, calls one reader, and shows what was written."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from qle import console

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


@prepare_app.command(
    help="Make endoscopy-like videos in which everything that happens is known, with annotations, boxes and masks. "
    "The same command again goes on where a killed one stopped."
    + example(
        "synthetic made/",
        "synthetic made/ --train 12 --val 4 --test 4 --composition 4 --seconds 12",
        "synthetic made/ --json",
    )
    + "\n\nThen: qle extract --videos made/videos --root made/videos --cache cache --backbone tiny --fps 2"
)
def synthetic(
    out: Annotated[Path, typer.Argument(help="Folder for videos/, annotations/ and their masks/; made if missing.")],
    train: Annotated[int, typer.Option(min=0, help="Videos to train on.")] = 48,
    val: Annotated[int, typer.Option(min=0, help="Videos for validation.")] = 8,
    test: Annotated[int, typer.Option(min=0, help="Videos to test on; paraphrase asks about the same in new words.")] = 12,
    composition: Annotated[int, typer.Option(min=0, help="Videos with pairs of colour and object that no other split has.")] = 8,
    seconds: Annotated[float, typer.Option(help="Length of each video.")] = 20.0,
    fps: Annotated[float, typer.Option(help="Frames a second.")] = 8.0,
    size: Annotated[int, typer.Option(help="Pixels of a side.")] = 224,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal videos.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Videos made at a time.  [default: one a core]")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    from qle.data.synthetic.script import SyntheticConfig
    from qle.prepare import write_synthetic

    config = SyntheticConfig(
        num_train=train, num_val=val, num_test=test, num_composition=composition, seconds=seconds, fps=fps, size=size,
        seed=seed,
    )  # fmt: skip
    with console.StepProgress("made", is_quiet=quiet) as progress:
        summary = write_synthetic(out, config, progress.update, workers)
    if json:
        console.print_json(asdict(summary))
        return
    rows = [(name, summary.num_present[name], summary.num_absent[name]) for name in summary.num_present]
    console.table(["annotations", "#queries that happen", "#that do not"], rows)
    console.print_text(f"{summary.num_videos} videos in {Path(out, 'videos')}, {summary.num_made} of them made now")
