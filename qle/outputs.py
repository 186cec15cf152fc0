"""Where results may be written: never onto what a command reads, never into a run or a cache. No torch.

    path that the user named + what the command reads -> nothing, or an error before any work

One wrong word on a command line must not cost a film or annotations. An earlier result of the same kind may be written over,
so that a command can be run again as it stands. A name that promises another kind of file (`--report r.pdf`) is refused: what
would be written there could not be opened as what its name says.
"""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from qle.errors import ConfigError, InputError

REPORT_SUFFIXES = (".html", ".htm")
FILM_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi")
MOMENTS_SUFFIXES = (".json", ".jsonl", ".csv", ".vtt", ".txt")
MEASURES_SUFFIXES = (".json",)


def format_of(format_: str, is_json: bool, out: Path | None, known: Collection[str]) -> str:
    """What --format, --json and --out come down to; ConfigError where they contradict each other."""
    if is_json and format_ not in ("table", "json"):
        raise ConfigError(f"--json and --format {format_}: choose one of the two")
    kind = "json" if is_json else format_
    if kind not in known:
        raise ConfigError(f"--format {kind}: choose one of {', '.join(known)}")
    if out is not None and out.is_dir():
        raise ConfigError(f"--out {out}: a folder stands there; name the file")
    return kind


def check_output(
    option: str, path: Path | None, *, inputs: Iterable[Path] = (), folders: Iterable[Path] = (),
    suffixes: tuple[str, ...] | None,
) -> None:  # fmt: skip
    """InputError where `path` is one of `inputs`, lies in one of `folders`, or is a file of another kind than `suffixes`;
    ConfigError where nothing stands there yet and its name ends as that of another kind of file.

    `option`: how the user named it. `suffixes`: None for a folder of results. A path of None is fine: nothing is written.
    """
    if path is None:
        return
    target = path.resolve()
    for read in inputs:
        if _is_same(target, read):
            raise InputError(
                f"{option} {path}: this command reads that file, and would write over it\nname another file"
            )
    for folder in folders:
        if target.is_relative_to(folder.resolve()):
            raise InputError(
                f"{option} {path}: lies in {folder}, a run or cache, whose files are never written over\n"
                "choose a place outside of it"
            )
    if suffixes is None:
        return
    if not target.exists():
        _check_suffix(option, path, suffixes)
        return
    if not target.is_file():  # a device, a pipe; a folder is refused by whoever opens it
        return
    if not {path.suffix.lower(), target.suffix.lower()} <= set(suffixes):  # both: a link may hide what it leads to
        raise InputError(
            f"{option} {path}: a file stands there that is no earlier result (expected {', '.join(suffixes)})\n"
            "name another file, or remove that one yourself"
        )


def _check_suffix(option: str, path: Path, suffixes: tuple[str, ...]) -> None:
    """ConfigError for a suffix that is none of these. Names without one say nothing, and neither do numbers: `result.2`."""
    suffix = path.suffix.lower()
    if suffix in suffixes or not any(sign.isalpha() for sign in suffix):
        return
    raise ConfigError(
        f"{option} {path}: {suffix} files are not written here (expected {', '.join(suffixes)})\n"
        f"name it e.g. {path.with_suffix(suffixes[0]).name}"
    )


def _is_same(target: Path, read: Path) -> bool:
    """Also by another spelling, a link or a second name of the same bytes."""
    try:
        return target == read.resolve() or os.path.samefile(target, read)
    except OSError:  # one of them is not there
        return False
