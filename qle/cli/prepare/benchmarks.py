"""`qle prepare` for the benchmarks of moment retrieval, highlights and text-to-video retrieval: each command calls its reader.

Commands are entered into `prepare_app` by qle/cli/prepare/surgical.py; MOMENT_COMMANDS has them by name, with their help.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from qle.cli.options import Json
from qle.cli.prepare.options import OutParts, Overwrite, SkipBad, Source, Sources, example, prepare_files, write

QVHIGHLIGHTS_HELP = (
    "Check JSONL files in the keys of QVHighlights (also Charades, TACoS, ActivityNet in that form) and write them anew."
    + example(
        "qvhighlights highlight_val_release.jsonl --out val.jsonl",
        "qvhighlights highlight_train_release.jsonl highlight_val_release.jsonl --out annotations",
    )
)
CHARADES_HELP = (
    "Charades-STA: lines `VIDEO start end##sentence`, for which --durations names the CSV of Charades with the lengths; "
    "or JSONL, which has them." + example(
        "charades charades_sta_test.txt --durations Charades_v1_test.csv --out test.jsonl",
        "charades charades_test_release.jsonl --out test.jsonl",
    )
)  # fmt: skip
CHARADES_CG_HELP = "Charades-CG: Charades-STA split by new words and new compositions of words." + example(
    "charades-cg Charades-CG/train.json Charades-CG/novel_word.json --out annotations"
)
CHARADES_CD_HELP = (
    "Charades-CD: Charades-STA split so that moments of test_ood lie elsewhere in their videos."
    + example("charades-cd Charades-CD/charades_train.json Charades-CD/charades_test_ood.json --out annotations")
)
TACOS_HELP = (
    "TACoS: JSON with times in frames, or JSONL with seconds. Videos lose their .avi, so both give the same."
    + example("tacos TACoS/train.json TACoS/val.json TACoS/test.json --out annotations")
)
ACTIVITYNET_HELP = "ActivityNet Captions: the official JSON (val_1 for selection, val_2 for test), or JSONL." + example(
    "activitynet train.json val_1.json val_2.json --out annotations",
    "activitynet activitynet_val_release.jsonl --out val.jsonl",
)
TVSUM_HELP = (
    "TVSum: titles of videos and what 20 people thought of their clips of 2 s; ratings without windows, for highlights."
    + example("tvsum tvsum_train.jsonl tvsum_val.jsonl --out annotations")
)
DIDEMO_HELP = (
    "DiDeMo's paragraphs for text-to-video retrieval. Videos are named as their files, or with --by-id as in "
    "formatted_data (test_data_id_00000)." + example(
        "didemo didemo_train_label.csv didemo_test_label.csv --out annotations",
        "didemo didemo_test_label.csv --by-id --out test.jsonl",
    )
)  # fmt: skip
MSRVTT_HELP = (
    "MSR-VTT's captions for text-to-video retrieval: the test table with its captions, a list of training videos with "
    "--captions, or all of MSRVTT_data.json in its splits." + example(
        "msrvtt MSRVTT_JSFUSION_test.csv --out test.jsonl",
        "msrvtt MSRVTT_train.9k.csv --captions MSRVTT_data.json --out train.jsonl",
        "msrvtt MSRVTT_data.json --out annotations",
    )
)  # fmt: skip


def qvhighlights(
    sources: Sources, out: OutParts, skip_bad: SkipBad = False, overwrite: Overwrite = False, json: Json = False
) -> None:
    prepare_files("qvhighlights", sources, out, skip_bad=skip_bad, overwrite=overwrite, as_json=json)


def charades(
    source: Source,
    out: OutParts,
    durations: Annotated[Path | None, typer.Option(help="CSV with columns id and length.")] = None,
    skip_bad: SkipBad = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    prepare_files(
        "charades", [source], out, skip_bad=skip_bad, overwrite=overwrite, as_json=json, durations=durations
    )  # fmt: skip


def charades_cg(
    sources: Sources, out: OutParts, skip_bad: SkipBad = False, overwrite: Overwrite = False, json: Json = False
) -> None:
    prepare_files("charades-cg", sources, out, skip_bad=skip_bad, overwrite=overwrite, as_json=json)


def charades_cd(
    sources: Sources, out: OutParts, skip_bad: SkipBad = False, overwrite: Overwrite = False, json: Json = False
) -> None:
    prepare_files("charades-cd", sources, out, skip_bad=skip_bad, overwrite=overwrite, as_json=json)


def tacos(
    sources: Sources, out: OutParts, skip_bad: SkipBad = False, overwrite: Overwrite = False, json: Json = False
) -> None:
    prepare_files("tacos", sources, out, skip_bad=skip_bad, overwrite=overwrite, as_json=json)


def activitynet(
    sources: Sources, out: OutParts, skip_bad: SkipBad = False, overwrite: Overwrite = False, json: Json = False
) -> None:
    prepare_files("activitynet", sources, out, skip_bad=skip_bad, overwrite=overwrite, as_json=json)


def tvsum(
    sources: Sources, out: OutParts, skip_bad: SkipBad = False, overwrite: Overwrite = False, json: Json = False
) -> None:
    prepare_files("tvsum", sources, out, skip_bad=skip_bad, overwrite=overwrite, as_json=json)


def didemo(
    sources: Sources,
    out: OutParts,
    by_id: Annotated[bool, typer.Option("--by-id", help="Name videos by the ids of formatted_data.")] = False,
    skip_bad: SkipBad = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    prepare_files("didemo", sources, out, skip_bad=skip_bad, overwrite=overwrite, as_json=json, by_id=by_id)


def msrvtt(
    source: Source,
    out: OutParts,
    captions: Annotated[Path | None, typer.Option(help="MSRVTT_data.json, for lists of videos alone.")] = None,
    skip_bad: SkipBad = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    from qle.data.readers.msrvtt import read
    from qle.data.readlog import ReadLog
    from qle.data.writers.parts import parts_of

    log = ReadLog(skip_bad=skip_bad)
    annotations = read(source, log, captions=captions)
    is_split = out.suffix != ".jsonl" and any(annotation.split for annotation in annotations)
    parts = parts_of(annotations, lambda annotation: annotation.split) if is_split else {source.stem: annotations}
    write(out, parts, log, overwrite=overwrite, as_json=json)


MOMENT_COMMANDS: dict[str, tuple[Callable[..., Any], str]] = {
    "qvhighlights": (qvhighlights, QVHIGHLIGHTS_HELP),
    "charades": (charades, CHARADES_HELP),
    "charades-cg": (charades_cg, CHARADES_CG_HELP),
    "charades-cd": (charades_cd, CHARADES_CD_HELP),
    "tacos": (tacos, TACOS_HELP),
    "activitynet": (activitynet, ACTIVITYNET_HELP),
    "tvsum": (tvsum, TVSUM_HELP),
    "didemo": (didemo, DIDEMO_HELP),
    "msrvtt": (msrvtt, MSRVTT_HELP),
}
