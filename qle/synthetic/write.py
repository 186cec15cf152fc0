"""Made-up videos on disk: the films of `qle.synthetic`, encoded, with their annotations and masks.

    OUT/synthetic.json                                    the settings; another run must have the same
    OUT/videos/{train,val,test,composition}/000.mp4       keys in a cache: "train/000.mp4", with --root OUT/videos
    OUT/annotations/{train,...,paraphrase}.jsonl          paraphrase asks about the test videos
    OUT/annotations/masks/test/000.npz

A killed run leaves only whole files, and the same command goes on: a video that is there is not made again, and annotations
follow from the settings alone.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from qle.config import config_to_dict
from qle.data.annotations import Annotation, write_annotations
from qle.data.masks import write_masks
from qle.durable import replace_file
from qle.errors import ConfigError, InputError
from qle.extract.decode.write import remove_unfinished, write_video
from qle.inputs import parse_json, read_record_bytes
from qle.runtime import num_cores
from qle.synthetic.annotate import PARAPHRASE, Labels, label
from qle.synthetic.film import Film
from qle.synthetic.pool import ProcessPool
from qle.synthetic.script import SPLITS, Script, SyntheticConfig, write_script
from qle.types import OnProgress

VERSION = 5
"""Version of what the films look like and say: a folder of another version is refused like one of other settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticSummary:
    """What is in the folder now."""

    folder: str
    num_videos: int
    num_made: int
    """By this run; the others were there."""
    num_present: dict[str, int]
    """Queries that happen, by annotation file."""
    num_absent: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    split: str
    number: int
    labels: Labels
    is_new: bool


def write_synthetic(
    out: Path, config: SyntheticConfig, on_progress: OnProgress | None = None, num_processes: int | None = None
) -> SyntheticSummary:
    """Make what is missing. Several videos at a time, in processes of their own; 1 makes them in this one."""
    scripts = [write_script(config, split, number) for split in SPLITS for number in range(config.num_videos(split))]
    if not scripts:
        raise ConfigError("no videos asked for: give at least one split a number of videos")
    _claim(out, config)
    done: dict[tuple[str, int], _Made] = {}
    for made in _make_all(out, config, scripts, num_processes or num_cores()):
        done[made.split, made.number] = made
        if on_progress is not None:
            on_progress(len(done), len(scripts), f"{made.split}/{made.number:03d}")
    ordered = [done[script.split, script.number] for script in scripts]
    files: dict[str, list[Annotation]] = {
        split: [a for made in ordered if made.split == split for a in made.labels.annotations] for split in SPLITS
    }
    files[PARAPHRASE] = [a for made in ordered for a in made.labels.paraphrases]
    files = {name: annotations for name, annotations in files.items() if annotations}
    for name, annotations in files.items():
        write_annotations(out / "annotations" / f"{name}.jsonl", annotations)
    return SyntheticSummary(
        folder=str(out),
        num_videos=len(scripts),
        num_made=sum(made.is_new for made in ordered),
        num_present={name: sum(a.is_present for a in annotations) for name, annotations in files.items()},
        num_absent={name: sum(not a.is_present for a in annotations) for name, annotations in files.items()},
    )


def _make_all(out: Path, config: SyntheticConfig, scripts: list[Script], num_processes: int) -> Iterator[_Made]:
    make = partial(_make, out, config)
    if num_processes == 1 or len(scripts) == 1:
        yield from map(make, scripts)
        return
    pool = ProcessPool(make, min(num_processes, len(scripts)))
    try:
        yield from pool.map(scripts)
    finally:
        pool.close()
        for script in pool.unfinished:
            remove_unfinished(out / "videos" / script.key)


def _make(out: Path, config: SyntheticConfig, script: Script) -> _Made:
    """One video, its masks before it: what has a video is whole."""
    labels = label(script, config)
    path = out / "videos" / script.key
    is_new = not path.is_file()
    if is_new:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_masks(out / "annotations" / "masks" / Path(script.key).with_suffix(".npz"), labels.tracks)
        write_video(path, Film(script, config).frames(), config.fps, is_reproducible=True)
    return _Made(split=script.split, number=script.number, labels=labels, is_new=is_new)


def _claim(out: Path, config: SyntheticConfig) -> None:
    """Write down the settings, or find that this folder has the same."""
    record = {"version": VERSION, "settings": config_to_dict(config)}
    path = out / "synthetic.json"
    if path.is_file():
        try:
            there = parse_json(read_record_bytes(path))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error})\ndelete the folder, or choose another") from error
        if there != record:
            raise ConfigError(
                f"{out} holds videos of other settings: {_difference(there, record)}\nchoose another folder"
            )
        return
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(
            f"{out} is not empty and no folder of made-up videos (no synthetic.json)\nchoose another folder"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out}: {error.strerror}\nname another --out") from error
    replace_file(path, json.dumps(record, indent=2).encode() + b"\n")


def _difference(written: object, record: dict[str, object]) -> str:
    if (
        not isinstance(written, dict)
        or written.get("version") != VERSION
        or not isinstance(written.get("settings"), dict)
    ):
        return f"another version than {VERSION}"
    wanted = record["settings"]
    assert isinstance(wanted, dict)
    there = written["settings"]
    return ", ".join(
        f"{name} {there.get(name)} there, {wanted.get(name)} asked"
        for name in wanted | there
        if there.get(name) != wanted.get(name)
    )
