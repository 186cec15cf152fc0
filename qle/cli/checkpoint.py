"""`qle checkpoint`: official weights in, official weights out."""

from pathlib import Path
from typing import Annotated

import typer

from qle.cli import console
from qle.cli.arguments import App
from qle.cli.options import Json

checkpoint_app = App(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Official checkpoints of published systems: read into a run, written back from one.

Nothing in a file is executed: pickles are read with an allow-list, and anything else in them is refused by name. Every tensor
is accounted for.
""",
)


IMPORT_HELP = """Make a run of an official checkpoint (moment-detr, qd-detr, cg-detr, mesm, tmass).

FILE is the training file (.ckpt, .pth with the options inside) or bare weights (.safetensors). Options come from --options, the
file, or an opt.json beside it. With --cache, --stream and --text-encoder the run is bound to the features and the words that
it was trained on, and then works like one of qle train-heads; without them it can be exported only.

Known faults of the official programs are mended (docs/heads.md); --published keeps them.

[bold]Examples[/bold]

  qle checkpoint import --from qd-detr model_best.ckpt --out runs/qd --cache cache --stream slowfast --stream clip+tef \\
      --text-encoder openai/clip-vit-base-patch32

  qle checkpoint import --from tmass model_best.pth --out runs/tmass --cache cache --stream clip --text-encoder clip-folder
"""

EXPORT_HELP = """Write the head of a run under the names of its official program.

A name that ends in .ckpt, .pth or .pt makes a training file that the official program loads (weights and options); .safetensors
the weights alone.

[bold]Examples[/bold]

  qle checkpoint export runs/qd --out model_best.ckpt
  qle checkpoint export runs/tmass --to tmass --out tmass.safetensors --json
"""


@checkpoint_app.command("import", help=IMPORT_HELP)
def import_(
    file: Annotated[Path, typer.Argument(help="Official file.")],
    from_: Annotated[str, typer.Option("--from", help="moment-detr, qd-detr, cg-detr, mesm or tmass.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; made.")],
    options: Annotated[Path | None, typer.Option(help="opt.json of the official program. \\[default: in or beside FILE]")] = None,
    cache: Annotated[Path | None, typer.Option(help="Cache with the features that it was trained on.")] = None,
    stream: Annotated[list[str] | None, typer.Option(help="SPACE or SPACE:STREAM, in their order; +tef behind one.")] = None,
    text_encoder: Annotated[str | None, typer.Option(help="Hugging Face id or folder, or a file of word vectors.")] = None,
    published: Annotated[bool, typer.Option("--published", help="Keep the faults of the official program.")] = False,
    json: Json = False,
) -> None:  # fmt: skip
    from dataclasses import asdict

    from qle.compat.convert import ImportRequest, import_checkpoint

    summary = import_checkpoint(
        ImportRequest(
            upstream=from_, file=file, out=out, options=options, cache=cache, streams=tuple(stream or ()),
            text_encoder=text_encoder, published=published,
        )
    )  # fmt: skip
    if json:
        console.print_json(asdict(summary))
        return
    unused = f", {len(summary.left_out)} of which the head has no use for" if summary.left_out else ""
    console.facts(
        {
            "run": summary.run,
            "head": f"{summary.head}, {summary.num_parameters:,} parameters",
            "tensors": f"{summary.num_tensors}{unused}",
            "options": summary.options_from,
        }
    )
    for note in summary.notes:
        console.note(note)


@checkpoint_app.command("export", help=EXPORT_HELP)
def export(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    out: Annotated[Path, typer.Option(help="File to write: .ckpt, .pth, .pt or .safetensors.")],
    to: Annotated[str | None, typer.Option(help="Official program.  \\[default: that of the head]")] = None,
    json: Json = False,
) -> None:
    from qle.compat.convert import export_checkpoint

    written = export_checkpoint(run, out, to)
    console.print_json(written) if json else console.facts(
        {"written": written["file"], "for": written["to"], "tensors": written["num_tensors"]}
    )
