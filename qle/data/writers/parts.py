"""Annotations -> the files that training and evaluation read, one a part (train, val, test), and how much is in them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qle.data.annotations import Annotation, write_annotations
from qle.errors import ConfigError, InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCounts:
    """What one file holds."""

    path: Path
    num_videos: int
    num_annotations: int
    num_queries: int
    """Different texts."""
    num_windows: int
    num_absent: int
    """Annotations that say: this never happens in this video."""
    num_unlabelled: int
    hours: float | None
    """Hours of video; None where the length of some video is not known."""


def parts_of(annotations: Iterable[Annotation], part: Callable[[Annotation], str]) -> dict[str, list[Annotation]]:
    """Sorted into parts; "" is called "annotations"."""
    parts: dict[str, list[Annotation]] = {}
    for annotation in annotations:
        parts.setdefault(part(annotation) or "annotations", []).append(annotation)
    return parts


def write_parts(out: Path, parts: Mapping[str, Sequence[Annotation]], *, overwrite: bool = False) -> list[PartCounts]:
    """`out` is a folder that gets <part>.jsonl, or, for one part only, a file that ends in .jsonl.

    Every file is looked at before the first is written, so that a refusal leaves all as it was.
    """
    parts = {name: parts[name] for name in sorted(parts, key=_rank) if parts[name]}
    if not parts:
        raise InputError(f"no annotations for {out}: the source has none")
    is_file = out.suffix == ".jsonl"
    if is_file and len(parts) > 1:
        raise ConfigError(
            f"--out {out} is one file, and there are {len(parts)} parts ({', '.join(parts)}): name a folder"
        )
    paths = {name: out if is_file else out / f"{_file_name(name)}.jsonl" for name in parts}
    if there := [str(path) for path in paths.values() if path.exists() and not overwrite]:
        raise ConfigError(f"{', '.join(there)} would be replaced\nadd --overwrite, or name another --out")
    for path in paths.values():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make folder {path.parent}: {error.strerror or error}") from error
    for name, annotations in parts.items():
        write_annotations(paths[name], annotations)
    return [counts(paths[name], annotations) for name, annotations in parts.items()]


def counts(path: Path, annotations: Sequence[Annotation]) -> PartCounts:
    durations_s: dict[str, float] = {}
    for annotation in annotations:
        if annotation.duration_s is not None:
            durations_s[annotation.video] = annotation.duration_s
    num_videos = len({annotation.video for annotation in annotations})
    return PartCounts(
        path=path,
        num_videos=num_videos,
        num_annotations=len(annotations),
        num_queries=len({annotation.query for annotation in annotations}),
        num_windows=sum(len(annotation.windows) for annotation in annotations),
        num_absent=sum(annotation.is_absent for annotation in annotations),
        num_unlabelled=sum(not annotation.is_labelled for annotation in annotations),
        hours=sum(durations_s.values()) / 3600 if len(durations_s) == num_videos else None,
    )


def _rank(part: str) -> int:
    known = ("train", "val", "test")
    return known.index(part) if part in known else len(known)


def _file_name(part: str) -> str:
    """A part is named by a file that somebody else wrote: it must stay a name inside the folder."""
    if part.startswith(".") or not part.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise InputError(f"split {part!r}: expected letters, digits, '-', '_' or '.', since it names a file")
    return part
