"""`qle prepare words`: published features of queries become a text encoder that knows these queries."""

from pathlib import Path
from typing import Annotated

import typer

from qle.cli import console
from qle.cli.options import Json, Quiet
from qle.cli.prepare.options import Overwrite, example
from qle.cli.progress import StepProgress
from qle.errors import ConfigError

WORDS_HELP = (
    "Features of queries as benchmarks publish them, one file a qid (qid<qid>.npz with last_hidden_state and pooler_output; "
    ".npy and .pt too), as one file that --text-encoder takes. Name all annotation files whose queries will ever be asked: what "
    "is not in the file cannot be. A file may grow later; runs that were trained with the smaller one take the larger."
    + example(
        "words clip_text_features --annotations train.jsonl --annotations val.jsonl --out words.safetensors",
        "words clip_text_features --annotations train.jsonl --out words.safetensors --allow-missing",
    )
    + "\n\nHeads that rebuild words (mesm) need their numbers: name the tokenizer of the model that made the features, e.g. "
    "--tokenizer openai/clip-vit-base-patch32 for those of QVHighlights."
    + "\n\nThen: qle train-heads ... --text-encoder words.safetensors"
)


def words(
    features: Annotated[Path, typer.Argument(help="Folder with one file a query.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The file to write (.safetensors).")],
    annotations: Annotated[list[Path], typer.Option(help="Annotations (.jsonl) that say which qid asks what; repeatable.")],
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Leave out queries that have no features.")] = False,
    tokenizer: Annotated[str | None, typer.Option(help="Of the model that made them, folder or id: words get numbers.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    from qle.data.annotations import read_annotations
    from qle.data.readers.query_features import read_query_features, with_numbers
    from qle.outputs import check_output
    from qle.text.words_file import StoredQueries, write_stored_words

    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out}: expected a name that ends in .safetensors, by which --text-encoder knows it")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} would be replaced\nadd --overwrite, or name another --out")
    check_output("--out", out, inputs=annotations, suffixes=(".safetensors",))
    asked = [annotation for path in annotations for annotation in read_annotations(path, allow_unlabelled=True)]
    with StepProgress("read", is_quiet=quiet) as progress:
        recorded = read_query_features(features, asked, allow_missing=allow_missing, on_progress=progress.update)
    numbered, spellings = (recorded.queries, None) if tokenizer is None else with_numbers(recorded.queries, tokenizer)
    write_stored_words(out, numbered, spellings)
    stored = StoredQueries(out)
    facts = {
        "path": str(out),
        "num_queries": len(stored),
        "dim": stored.dim,
        "sentence_dim": stored.sentence_dim,
        "max_words": stored.max_words,
        "size_bytes": out.stat().st_size,
    }
    if json:
        console.print_json(facts | {"notes": recorded.notes})
        return
    for note in recorded.notes:
        console.note(note)
    console.print_text(
        f"{len(stored):,} queries of at most {stored.max_words} words, {stored.dim} numbers each "
        f"({console.format_bytes(out.stat().st_size)}): {out}"
    )
