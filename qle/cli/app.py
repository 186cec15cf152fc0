"""The command line: each command parses, builds a request, calls one function and shows the result.

Results go to stdout (`--json` everywhere), everything else to stderr. torch is imported inside the commands, so that help
answers at once.
"""

from typing import Annotated

import typer

import qle
from qle.cli.arguments import App
from qle.cli.cache.app import cache_app
from qle.cli.checkpoint import checkpoint_app
from qle.cli.demo import DEMO_HELP, demo
from qle.cli.doctor import doctor
from qle.cli.ending import run
from qle.cli.eval import EVAL_HELP, eval_
from qle.cli.explain import EXPLAIN_HELP, explain
from qle.cli.extract import EXTRACT_HELP, extract
from qle.cli.localize import LOCALIZE_HELP, localize
from qle.cli.prepare.surgical import prepare_app
from qle.cli.prepare.words import WORDS_HELP, words
from qle.cli.search import SEARCH_HELP, search
from qle.cli.train import TRAIN_HELP, train_heads

app = App(
    name="qle",
    help="Query, Localize, Explain: find any event that words can describe in long video, and show why.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.add_typer(cache_app, name="cache")
app.add_typer(prepare_app, name="prepare")
prepare_app.command("words", help=WORDS_HELP)(words)
app.add_typer(checkpoint_app, name="checkpoint")
app.command("train-heads", help=TRAIN_HELP)(train_heads)
app.command(help=LOCALIZE_HELP)(localize)
app.command(help=SEARCH_HELP)(search)
app.command(help=EXPLAIN_HELP)(explain)
app.command("eval", help=EVAL_HELP)(eval_)
app.command(help=EXTRACT_HELP)(extract)
app.command()(doctor)
app.command(help=DEMO_HELP)(demo)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Query, Localize, Explain."""
    if version:
        print(qle.__version__)  # noqa: T201 - the result
        raise typer.Exit


def main() -> None:
    """The command `qle`: errors that we expect end with their message and exit code, everything else is a bug."""
    from qle.runtime import interrupt_on_sigterm

    interrupt_on_sigterm()
    run(app)
