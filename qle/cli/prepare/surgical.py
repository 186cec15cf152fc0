"""`qle prepare ...`: one command a dataset. Each parses, calls one reader, and shows what was written.

Surgical video, own tables and made-up videos are here; benchmarks of moments and retrieval in benchmarks.py, what makes or gives
back whole files in files.py.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qle.cli import console
from qle.cli.arguments import App
from qle.cli.options import Json, Quiet
from qle.cli.prepare.benchmarks import MOMENT_COMMANDS
from qle.cli.prepare.files import FILE_COMMANDS
from qle.cli.prepare.options import Out, OutFile, Overwrite, Root, SkipBad, Source, example, positive, write
from qle.cli.progress import StepProgress
from qle.errors import ConfigError

if TYPE_CHECKING:
    from qle.data.annotations import Annotation
    from qle.data.readlog import ReadLog

prepare_app = App(
    help="Turn a dataset's own labels into annotation files (JSONL).", no_args_is_help=True, rich_markup_mode="rich"
)


@prepare_app.callback()
def prepare() -> None:
    """Turn a dataset's own labels into annotation files (JSONL)."""


@prepare_app.command(
    help="Cholec80: phases and tools as the 15 published queries, absent ones included. Splits by video: 40-40 and 40-8-32 "
    "and 32-8-40 (first to last), or qle (70 : 15 : 15, shuffled with seed 42)."
    + example("cholec80 /data/cholec80 --out annotations", "cholec80 /data/cholec80 --out annotations --paraphrases")
)
def cholec80(
    root: Root,
    out: Out,
    split: Annotated[str, typer.Option(help="40-40, 32-8-40, 40-8-32 or qle.")] = "32-8-40",
    paraphrases: Annotated[bool, typer.Option(
        "--paraphrases", help="More wordings in train, and test-paraphrase.jsonl with wordings that train never has."
    )] = False,
    skip_bad: SkipBad = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:  # fmt: skip
    from qle.data.readers.cholec80 import read_operations
    from qle.data.readers.splits import cholec80_split
    from qle.data.readlog import ReadLog

    log = ReadLog(skip_bad=skip_bad)
    cholec80_split(split, ())  # a wrong name should not cost the reading
    operations = read_operations(root, log)
    part_of = cholec80_split(split, [operation.number for operation in operations])
    parts: dict[str, list[Annotation]] = {"train": [], "val": [], "test": [], "test-paraphrase": []}
    for operation in operations:
        part = part_of[operation.number]
        parts[part] += operation.annotations("training" if paraphrases and part == "train" else "published")
        if paraphrases and part == "test":
            parts["test-paraphrase"] += operation.annotations("held-out")
    write(out, parts, log, overwrite=overwrite, as_json=json)


@prepare_app.command(
    help="CholecT50 or CholecT45: every instrument-verb-target triplet as a sentence, with boxes where there are some. "
    "Splits: rdv, or fold1 to fold5 (that fold is test)."
    + example("cholect50 /data/CholecT50 --out annotations", "cholect50 /data/CholecT50 --split fold1 --out fold1")
)
def cholect50(
    root: Root,
    out: Out,
    split: Annotated[str, typer.Option(help="rdv, fold1, ..., fold5.")] = "rdv",
    skip_bad: SkipBad = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    from qle.data.readers.cholect50 import read, video_number
    from qle.data.readers.splits import cholect50_split
    from qle.data.readlog import ReadLog
    from qle.data.writers.parts import parts_of

    log = ReadLog(skip_bad=skip_bad)
    cholect50_split(split, ())
    annotations = read(root, log)
    part_of = cholect50_split(split, {video_number(annotation.video) for annotation in annotations})
    parts = parts_of(annotations, lambda annotation: part_of[video_number(annotation.video)])
    write(out, parts, log, overwrite=overwrite, as_json=json)


@prepare_app.command(
    help="Your own intervals: a CSV with columns video, query, start, end (seconds or mm:ss), and if you like split, concept "
    "(queries that mean the same), duration, qid. A row without times says that the query never happens in that video."
    + example(
        "intervals events.csv --out annotations.jsonl",
        "intervals events.csv --out annotations --split 70-15-15",
        "intervals gt_segments.csv --fps 25 --out test.jsonl",
    )
)
def intervals(
    source: Source,
    out: OutFile,
    split: Annotated[str | None, typer.Option(help="Percent of the videos for train-val-test, e.g. 70-15-15.")] = None,
    seed: Annotated[int, typer.Option(help="Of the shuffle before that.")] = 42,
    fps: Annotated[
        float | None, typer.Option(help="Frames a second, where columns are start_frame, end_frame.")
    ] = None,
    skip_bad: SkipBad = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    from qle.data.readers.interval_csv import read
    from qle.data.readers.splits import by_fractions
    from qle.data.readlog import ReadLog
    from qle.data.writers.parts import parts_of

    log = ReadLog(skip_bad=skip_bad)
    annotations = read(source, log, fps=positive("fps", fps))
    if split is None:
        # One file holds all splits as they are named; a folder gets a file for each.
        parts = parts_of(annotations, lambda annotation: "" if out.suffix == ".jsonl" else annotation.split)
    else:
        percent = _percent(split)
        part_of = by_fractions(sorted({annotation.video for annotation in annotations}), percent, seed=seed)
        _tell_empty(percent, part_of, log)
        parts = parts_of(annotations, lambda annotation: part_of[annotation.video])
    write(out, parts, log, overwrite=overwrite, as_json=json)


Fps = Annotated[float, typer.Option(help="Frames a second of the videos.")]
Stride = Annotated[int, typer.Option(min=1, help="Every how many frames have rows.")]


@prepare_app.command(
    help="QLE's triplets (frame_path, text_query, relevance_label) as annotations: frames become windows."
    + example("triplets triplets_train.csv --out train.jsonl")
)
def triplets(
    source: Source,
    out: OutFile,
    fps: Fps = 25.0,
    stride: Stride = 5,
    skip_bad: SkipBad = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    from qle.data.readers.qle_triplets import read
    from qle.data.readlog import ReadLog

    log = ReadLog(skip_bad=skip_bad)
    annotations = read(source, log, fps=positive("fps", fps) or 25.0, stride=stride)
    write(out, {source.stem: annotations}, log, overwrite=overwrite, as_json=json)


@prepare_app.command(
    "to-triplets",
    help="The other way: annotations as QLE's triplets. Negatives are drawn by concept, so synonyms never contradict."
    + example("to-triplets train.jsonl --out triplets_train.csv --negatives 2"),
)
def to_triplets(
    source: Source,
    out: Annotated[Path, typer.Option("--out", help="The .csv file to write.")],
    fps: Fps = 25.0,
    stride: Stride = 5,
    negatives: Annotated[int, typer.Option(min=0, help="Negative rows for each frame.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the choice of negatives.")] = 42,
    folder: Annotated[str, typer.Option(help="What stands before the names of videos in frame_path.")] = (
        "extracted_frames/CHOLEC80__"
    ),
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    from qle.data.annotations import read_annotations
    from qle.data.writers.triplets import write_triplets

    if out.exists() and not overwrite:
        raise ConfigError(f"{out} would be replaced\nadd --overwrite, or name another --out")
    num_rows = write_triplets(
        out, read_annotations(source), fps=positive("fps", fps) or 25.0, stride=stride, num_negatives=negatives,
        seed=seed, folder=folder,
    )  # fmt: skip
    console.print_json({"path": out, "num_rows": num_rows}) if json else console.print_text(f"{num_rows:,} rows: {out}")


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
    workers: Annotated[int | None, typer.Option(min=1, help="Videos made at a time.  \\[default: one a core]")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    from qle.synthetic.script import SyntheticConfig
    from qle.synthetic.write import write_synthetic

    config = SyntheticConfig(
        num_train=train, num_val=val, num_test=test, num_composition=composition, seconds=seconds, fps=fps, size=size,
        seed=seed,
    )  # fmt: skip
    with StepProgress("made", is_quiet=quiet) as progress:
        summary = write_synthetic(out, config, progress.update, workers)
    if json:
        console.print_json(asdict(summary))
        return
    rows = [(name, summary.num_present[name], summary.num_absent[name]) for name in summary.num_present]
    console.table(["annotations", "#queries that happen", "#that do not"], rows)
    console.print_text(f"{summary.num_videos} videos in {Path(out, 'videos')}, {summary.num_made} of them made now")


def _tell_empty(percent: tuple[int, int, int], part_of: Mapping[str, str], log: "ReadLog") -> None:
    asked = [part for part, share in zip(("train", "val", "test"), percent, strict=True) if share]
    if empty := [part for part in asked if part not in part_of.values()]:
        log.note(
            f"no video for {', '.join(empty)}: splits go by video, and there are {len(part_of):,}; such parts get no file"
        )


def _percent(split: str) -> tuple[int, int, int]:
    parts = split.split("-")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise ConfigError(f"--split {split}: expected three parts of 100, e.g. 70-15-15")
    return int(parts[0]), int(parts[1]), int(parts[2])


for _name, (_command, _help) in (MOMENT_COMMANDS | FILE_COMMANDS).items():
    prepare_app.command(_name, help=_help)(_command)
