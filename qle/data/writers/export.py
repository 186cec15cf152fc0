"""Annotations -> files in a dataset's own format, all of them or none, and what of them the format could not hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qle.data.annotations import Annotation
from qle.data.readlog import ReadLog
from qle.data.writers import WRITERS, writer
from qle.durable import replace_file
from qle.errors import AnnotationError, ConfigError, InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    paths: tuple[Path, ...]
    num_annotations: int
    """That were written."""
    num_left_out: int
    """That the format has no word for; the notes say why."""
    notes: tuple[str, ...]
    """What the format has no word for."""


def export(out: Path, annotations: Sequence[Annotation], name: str, *, overwrite: bool = False) -> Exported:
    """`name`: a key of WRITERS. Formats of two files put the second beside `out`."""
    if name not in WRITERS:
        raise ConfigError(f"--to {name}: choose one of {', '.join(WRITERS)}")
    log = ReadLog()
    files = writer(name)(out, annotations, log)
    if not any(files.values()):
        raise AnnotationError(f"{out}: no annotation that {name} can hold\n{'; '.join(log.notes)}".rstrip())
    if there := [str(path) for path in files if path.exists() and not overwrite]:
        raise ConfigError(f"{', '.join(there)} would be replaced\nadd --overwrite, or name another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            replace_file(path, content)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from error
    return Exported(
        paths=tuple(files), num_annotations=len(annotations) - log.num_left_out,
        num_left_out=log.num_left_out, notes=tuple(log.notes),
    )  # fmt: skip
