"""What a run can say of itself while it goes on: counts, and where its time goes."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields


@dataclass(slots=True)
class Progress:
    """A snapshot of one device's engine; plain numbers, so that it crosses process borders."""

    videos_total: int = 0
    """That were missing when the run began."""
    videos_done: int = 0
    videos_failed: int = 0
    videos_contested: int = 0
    """In the hands of another process."""
    videos_opened: int = 0
    """Whose rows are part of `rows_planned`."""
    rows_done: int = 0
    """Rows stored, counted once for each backbone."""
    rows_planned: int = 0
    """Rows of all videos opened so far, likewise."""
    forward_busy_s: float = 0.0
    forward_waiting_s: float = 0.0
    write_busy_s: float = 0.0
    write_waiting_s: float = 0.0
    notes: list[str] = field(default_factory=list)
    """Things the user should read once: a halved batch, a failed video."""

    @property
    def binding(self) -> str:
        """The resource that the others wait for."""
        forward_s = self.forward_busy_s + self.forward_waiting_s
        write_s = self.write_busy_s + self.write_waiting_s
        if write_s > 0 and self.write_busy_s > 0.8 * write_s:
            return "write"
        if forward_s > 0 and self.forward_waiting_s > 0.5 * forward_s:
            return "decode"
        return "forward"

    @classmethod
    def combined(cls, parts: "Iterable[Progress]") -> "Progress":
        """The sum over processes that walk one list together."""
        parts = list(parts)
        whole = cls()
        for field_ in fields(cls):
            values = [getattr(part, field_.name) for part in parts]
            if field_.name == "notes":
                whole.notes = [note for notes in values for note in notes]
            elif field_.name in ("videos_total", "videos_contested"):  # each process sees the same list
                setattr(whole, field_.name, max(values, default=0))
            else:
                setattr(whole, field_.name, sum(values))
        return whole
