"""What a reader has to tell besides annotations: rows that are wrong, and what it changed in rows that are almost right.

Nothing that a reader meets is dropped in silence. A wrong row is an error that names file, line, key and reason; of many
the first few are told and all are counted. Who wants the good rows anyway (`skip_bad`) gets the wrong ones as notes.
"""

from dataclasses import dataclass, field
from pathlib import Path

from qle.errors import AnnotationError

MOST_TOLD = 3
"""Wrong rows that an error tells in full."""
MOST_KNOWN, MOST_KNOWN_SHARE = 10, 0.01
"""Rows with known faults that a file may have: so many, or this part of it. With more it is not the published file."""


class BadRow(Exception):  # noqa: N818 - not an error of its own: the log turns it into one
    """Raised where a row is parsed; whoever knows the line hands it to the log."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason


class KnownFault(BadRow):
    """A row that a published file is known to have wrong, and that all results with it leave out: told, but no error."""


@dataclass(slots=True)
class ReadLog:
    """One for each reading of one file or folder. `close` at the end raises what was wrong."""

    skip_bad: bool = False
    """Leave wrong rows out and say so, instead of refusing the file."""
    num_left_out: int = 0
    """Good annotations that a writer's format cannot hold."""
    notes: list[str] = field(default_factory=list)
    """What the user should be told, one line each; complete after `close`."""
    skipped: list[str] = field(default_factory=list)
    """Wrong rows that were left out: "val.jsonl line 4, qid: ..."."""
    _bad: list[str] = field(default_factory=list)
    _num_bad: int = 0
    _known: list[str] = field(default_factory=list)
    _turned: list[str] = field(default_factory=list)
    _num_cut: int = 0
    _most_cut_s: float = 0.0

    def bad(self, path: Path, line: int, row: BadRow) -> None:
        """A row that cannot be used."""
        told = f"{path} line {line}, {row.key}: {row.reason}"
        if isinstance(row, KnownFault):
            self._known.append(told)
            return
        self._num_bad += 1
        if self.skip_bad:
            self.skipped.append(told)
        elif len(self._bad) < MOST_TOLD:
            self._bad.append(told)

    def cut(self, seconds: float) -> None:
        """A window that reached past an end of its video by so little that it was cut."""
        self._num_cut += 1
        self._most_cut_s = max(self._most_cut_s, seconds)

    def turned(self, path: Path, line: int) -> None:
        """A window whose start stood behind its end, as a published file is known to have them: turned round."""
        self._turned.append(f"{path} line {line}")

    def note(self, text: str) -> None:
        self.notes.append(text)

    def close(self, num_rows: int) -> None:
        """Say what was found in all. Raises AnnotationError when rows were wrong and nobody asked to skip them."""
        if self._num_cut:
            most = f"by up to {self._most_cut_s:.2g} s"
            self.note(f"{self._num_cut:,} windows cut, {most}, where they reached past an end of their video")
        self._tell_known(self._turned, num_rows, "windows turned round, because they ended before they started")
        self._tell_known(self._known, num_rows, "rows left out, as all published results leave them out")
        if self._num_bad and self.skip_bad:
            self.note(f"{self._num_bad:,} of {num_rows:,} rows left out because they are wrong")
        if self._bad:
            if self._num_bad == 1:
                raise AnnotationError(self._bad[0])
            count = f"{self._num_bad:,} of {num_rows:,} rows are wrong"
            rest = f"; and {self._num_bad - len(self._bad):,} more" if self._num_bad > len(self._bad) else ""
            raise AnnotationError(f"{count}\n{'; '.join(self._bad)}{rest}")

    def _tell_known(self, told: list[str], num_rows: int, what: str) -> None:
        if not told:
            return
        rest = f"; and {len(told) - MOST_TOLD:,} more" if len(told) > MOST_TOLD else ""
        text = f"{len(told):,} {what}: {'; '.join(told[:MOST_TOLD])}{rest}"
        if len(told) > max(MOST_KNOWN, MOST_KNOWN_SHARE * num_rows) and not self.skip_bad:
            raise AnnotationError(f"{text}\nfar more than the published file has: check what stands where")
        self.note(text)

    def nothing_left(self, text: str) -> AnnotationError:
        """The error for a source of which no row is left, with the first reasons where rows were skipped."""
        skipped = [*self.skipped, *self._known]
        if not skipped:
            return AnnotationError(text)
        rest = f"; and {len(skipped) - MOST_TOLD:,} more" if len(skipped) > MOST_TOLD else ""
        return AnnotationError(f"{text}\n{'; '.join(skipped[:MOST_TOLD])}{rest}")
