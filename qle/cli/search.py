"""`qle search`: parses, builds one SearchRequest, calls `search`, shows the result in one of four formats."""

from pathlib import Path
from typing import Annotated

import typer

from qle.cli import console
from qle.cli.progress import StepProgress
from qle.outputs import MOMENTS_SUFFIXES, check_output, format_of
from qle.runtime import cache_folder, prepare_cpu

SEARCH_HELP = """Find when something happens in any of the videos of a cache: first the videos, then the moments in them.

Stage 1 (--retriever, a run of a head that ranks videos) compares the query with the mean frame of every video, and exactly with
the --shortlist best of them. Stage 2 (--localizer, any run that qle localize takes) looks for moments in the --top-videos best.
Without --localizer videos are ranked, and that is all. The score is share ** lambda * probability ** (1 - lambda), in 0 to 1:
the share of the video in the softmax over the shortlist, the probability of the moment. lambda and tau of the softmax come from
--fusion, which qle eval --protocol corpus --fit writes.

The first search of a space reads some frames of every video into an index beside its videos, which later ones map; videos that
come, go or change are noticed. Of a file of --queries only the words count, not the videos that it names.
Exit code 0: all searched, 4: some videos could not be read, or the localizer does not know them.

[bold]Examples[/bold]

  qle search --cache cache --query "a clipper is present" --retriever runs/tmass --localizer runs/qd

  qle search --cache cache --query "bleeding" --query "suturing" --retriever runs/tmass --top 20

  qle search --cache cache --queries wishes.txt --retriever runs/tmass --localizer runs/qd --fusion fusion.json --format csv
"""


def search(
    retriever: Annotated[Path, typer.Option(help="Folder of a run that ranks videos (head tmass).")],
    query: Annotated[list[str] | None, typer.Option(help="What to look for, in words; may be repeated.")] = None,
    queries: Annotated[Path | None, typer.Option(help="File of queries: one a line, or JSONL; - reads stdin.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Cache with the videos. Default: $QLE_CACHE.", show_default=False)] = None,
    localizer: Annotated[Path | None, typer.Option(help="Folder of a run that finds moments.")] = None,
    top_videos: Annotated[int, typer.Option(help="Videos in which moments are looked for.")] = 20,
    top: Annotated[int, typer.Option(help="Most results of a query: moments, or videos without --localizer.")] = 10,
    shortlist: Annotated[int, typer.Option(help="Videos that are compared exactly.")] = 1000,
    fusion: Annotated[Path | None, typer.Option(help="Fitted weights of both stages, from qle eval --fit.")] = None,
    format_: Annotated[str, typer.Option("--format", help="table, json, jsonl (QVHighlights) or csv.")] = "table",
    out: Annotated[Path | None, typer.Option(help="Write the result to this file instead of the terminal.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1...")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:  # fmt: skip
    from qle.localize.query_files import read_queries
    from qle.outputs import one_line, write_text
    from qle.runs.load import check_run
    from qle.search.result_files import FORMATS, render
    from qle.types import Query

    kind = format_of(format_, json, out, FORMATS)
    root = cache_folder(cache)
    check_output(
        "--out", out, inputs=[path for path in (queries, fusion) if path is not None],
        folders=[path for path in (retriever, localizer, root) if path is not None], suffixes=MOMENTS_SUFFIXES,
    )  # fmt: skip
    asked = [*(Query(text=text) for text in query or ()), *(read_queries(queries) if queries else ())]

    from qle.search.request import SearchRequest

    request = SearchRequest(
        cache=root, queries=tuple(asked), retriever=retriever, localizer=localizer, top_videos=top_videos, top=top,
        shortlist=shortlist, fusion=fusion, device=device,
    )  # fmt: skip
    for folder in (retriever, localizer):
        if folder is not None:
            check_run(folder)

    from qle.search.run import search as run

    prepare_cpu(console.note)
    with StepProgress("searched", is_quiet=quiet) as progress:
        result = run(request, progress.update)
    text = render(kind, result)
    if out is None:
        console.print_plain(text)
    else:
        write_text(out, text)
    for name, reason in result.failures.items():
        console.note(one_line(f"failed  {name}: {reason}"))
    for line in (*result.notes, *([] if out is None else [f"wrote {out}"])):
        console.note(one_line(line))
    raise typer.Exit(result.exit_code)
