"""Where results may be written: never onto what a command reads, never into a run or a cache. No torch.

    path that the user named + what the command reads -> nothing, or an error before any work

One wrong word on a command line must not cost a film or annotations. An earlier result of the same kind may be written over,
so that a command can be run again as it stands. A name that promises another kind of file (`--report r.pdf`) is refused: what
would be written there could not be opened as what its name says.
"""

import json
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from qle.durable import replace_file
from qle.errors import ConfigError, InputError

TURNING = "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""Characters that nobody sees and that turn the order of what stands beside them, or break its line: for character classes."""
_TURNING = re.compile(f"[{TURNING}]")
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


def write_json(path: Path, value: Any) -> None:
    """Readable, and strict: a metric that is not a number is null."""
    replace_file(path, strict_json(value).encode() + b"\n")


def strict_json(value: Any) -> str:
    """The text that `write_json` writes."""
    return json.dumps(_finite(value), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))) else value


def write_text(path: Path, text: str) -> None:
    """All of it or nothing: readers see the old file or the new one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode("utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}\nchoose another --out") from error


def one_line(text: str) -> str:
    """For terminals and players: what would move a cursor, colour a screen or turn the order of words is shown as a
    replacement."""
    signs = _TURNING.sub("\ufffd", " ".join(text.split()))
    return "".join("\ufffd" if unicodedata.category(sign) in ("Cc", "Cs") else sign for sign in signs)
