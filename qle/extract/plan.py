"""What there is to do: paths that the user named -> a sorted list of `VideoSource`, each with a key that stays the same.

A key is the path relative to the root that the user named, suffix included: `case1/video.mp4` and `case2/video.mp4` stay
apart, and a file that appears later beside another never renames it. The root of a folder is the folder, of a glob its
fixed leading part, of a manifest the folder that it lies in, of single files their own folder.
"""

import csv
import glob
import io
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from qle.errors import ConfigError, InputError
from qle.inputs import decimal_point, decode_text, read_input_bytes, refuse_address
from qle.types import VideoSource

VIDEO_SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".divx", ".dv", ".flv", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)
PATH_COLUMNS = ("path", "video", "video_path", "file", "filename")
KEY_COLUMNS = ("key", "video_id", "vid", "id")
MANIFEST_SUFFIXES = {".csv": ",", ".tsv": "\t"}


def discover(inputs: Iterable[str], root: Path | None = None, limit: int | None = None) -> list[VideoSource]:
    """All videos that the inputs name, sorted by key. `root` overrides what keys are relative to."""
    sources: dict[str, VideoSource] = {}
    for text in inputs:
        for source in _expand(text, root):
            known = sources.setdefault(source.key, source)
            if known is not source:
                _check_same(known, source)
    if not sources:
        raise InputError(
            f"no videos found in {', '.join(map(str, inputs))}: give a folder, a glob, a manifest.csv or files"
        )
    ordered = [sources[key] for key in sorted(sources)]
    return ordered if limit is None else ordered[:limit]


def size_bytes(source: VideoSource) -> int:
    """0 where the file has gone since the list was made, or is a link to nowhere: its probe will say so."""
    try:
        return source.path.stat().st_size
    except OSError:
        return 0


def size_and_time(source: VideoSource) -> tuple[int | None, int | None]:
    """Size and modification time in ns, by which a file is known to have changed; None where it is gone."""
    try:
        stat = source.path.stat()
    except OSError:
        return None, None
    return stat.st_size, stat.st_mtime_ns


def _check_same(known: VideoSource, other: VideoSource) -> None:
    """The same video may be named twice; two videos, or two parts of one, need two keys."""
    if known.path.resolve() != other.path.resolve():
        raise InputError(
            f"two videos would share the key {other.key!r}:\n  {known.path}\n  {other.path}\n"
            "Pass --root with a folder above both, or give them keys in a manifest."
        )
    if (known.start_s, known.end_s) != (other.start_s, other.end_s):
        parts = " and ".join(_span(source.start_s, source.end_s) for source in (known, other))
        raise InputError(
            f"two parts of {known.path} would share the key {other.key!r}: {parts} s\n"
            "Give each its own in the manifest, or leave the column empty: the times then become part of the key."
        )


def _expand(text: str, root: Path | None) -> Iterator[VideoSource]:
    path = Path(text)
    if os.path.isdir(path):
        yield from _sources(_videos_below(path), root or path)
    elif path.suffix.lower() in MANIFEST_SUFFIXES and os.path.isfile(path):
        yield from _read_manifest(path, root or path.parent)
    elif os.path.exists(path):
        yield from _sources([path], root or path.parent)
    elif glob.has_magic(text):
        matches = [Path(match) for match in sorted(glob.glob(text, recursive=True)) if Path(match).is_file()]
        yield from _sources(matches, root or _fixed_part(text))
    else:
        raise InputError(f"{text} does not exist: give a folder, a glob, a manifest.csv or video files")


def _sources(paths: Iterable[Path], root: Path) -> Iterator[VideoSource]:
    for path in paths:
        yield VideoSource(key=key_of(path, root), path=path)


def key_of(path: Path, root: Path) -> str:
    """The path below the root, as text that any terminal and JSON file can hold."""
    try:
        relative = Path(os.path.abspath(path)).relative_to(os.path.abspath(root))
    except ValueError as error:
        raise ConfigError(f"{path} does not lie below the root {root}: choose a --root above all videos") from error
    # Names that are not valid UTF-8 exist on real disks; escaped they stay distinct and printable.
    return os.fsencode(PurePosixPath(relative)).decode("utf-8", "backslashreplace")


def _videos_below(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # a link back to where we are, or have been
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            # "._x.mp4" and the like are what some systems leave beside a file, not videos.
            if not name.startswith(".") and Path(name).suffix.lower() in VIDEO_SUFFIXES:
                yield Path(parent, name)


def _fixed_part(pattern: str) -> Path:
    parts = Path(pattern).parts
    return Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])


def _read_manifest(manifest: Path, root: Path) -> Iterator[VideoSource]:
    names, rows, delimiter = _table(manifest)
    columns = {name.strip().lower(): name for name in names if name}
    path_column = next((columns[name] for name in PATH_COLUMNS if name in columns), None)
    if path_column is None:
        raise InputError(f"{manifest}: no column with the video's path; name one of {', '.join(PATH_COLUMNS)}")
    key_column = next((columns[name] for name in KEY_COLUMNS if name in columns), None)
    start_column, end_column = (columns.get(name) or columns.get(f"{name}_s") for name in ("start", "end"))
    missing = ""
    num_there = 0
    for line, row in rows:
        where = f"{manifest}:{line}"
        if not (text := (row[path_column] or "").strip()):
            raise InputError(f"{where}: the column {path_column!r} is empty")
        refuse_address(f"{where}:", text, InputError)
        path = manifest.parent / text  # an absolute path stays as it is
        # One missing file of many fails as a video; all of them missing is a mistake in the list.
        is_there = os.path.isfile(path)  # unlike Path.is_file, also False for a name that no disk could hold
        num_there += is_there
        missing = missing or ("" if is_there else f"{where}: {str(path)[:200]}")
        start_s, end_s = (_seconds(row, column, where, delimiter) for column in (start_column, end_column))
        if start_s is not None and end_s is not None and end_s <= start_s:
            raise InputError(f"{where}: end {end_s} is not after start {start_s}")
        key = (row[key_column] or "").strip() if key_column else ""
        if not key:
            is_clip = start_s is not None or end_s is not None
            key = key_of(path, root) + (f"#{_span(start_s, end_s)}" if is_clip else "")
        yield VideoSource(key=key, path=path, start_s=start_s, end_s=end_s)
    if missing and not num_there:
        raise InputError(f"{missing} does not exist, nor does any other (paths are relative to the manifest)")


def _table(manifest: Path) -> tuple[Sequence[str], list[tuple[int, dict[str, str]]], str]:
    """Names of the columns, rows with the number of their line, and what stands between cells: a comma, or as spreadsheets
    write it where numbers have decimal commas, a semicolon or a tab."""
    text = _text(manifest)
    header = text.partition("\n")[0]
    delimiter = next((sign for sign in ",;\t" if sign in header), MANIFEST_SUFFIXES[manifest.suffix.lower()])
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return reader.fieldnames or (), [(reader.line_num, row) for row in reader], delimiter
    except csv.Error as error:  # a cell of more than 131,072 characters, where a quote was never closed
        raise InputError(
            f"{manifest}:{reader.line_num + 1}: no CSV ({error})\nlook for a quote that is not closed"
        ) from error


def _span(start_s: float | None, end_s: float | None) -> str:
    """10.0 to 20.5 -> "10-20.5", to the last digit: clips late in a long video differ in the seventh."""
    return "-".join("" if seconds is None else repr(seconds).removesuffix(".0") for seconds in (start_s or 0.0, end_s))


def _text(manifest: Path) -> str:
    try:
        text = decode_text(read_input_bytes(manifest))
    except OSError as error:
        raise InputError(f"{manifest} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{manifest}: {error}") from error
    if "\0" in text:
        raise InputError(f"{manifest}:{text.count(chr(10), 0, text.index(chr(0))) + 1}: a zero byte, expected text")
    return text


def _seconds(row: dict[str, str], column: str | None, where: str, delimiter: str) -> float | None:
    text = decimal_point((row[column] or "").strip(), delimiter) if column else ""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InputError(f"{where}: {column} is {text!r}, expected seconds, or nothing for the whole video")
    return seconds
