"""What a training says about itself while it runs."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStatus:
    """A snapshot for the status line."""

    step: int
    num_steps: int
    epoch: int
    num_epochs: int
    loss: float | None = None
    """Mean since the last line of the history."""
    score: float | None = None
    """Score of the newest validation."""
    best_score: float | None = None
    score_label: str = "AUROC"
    """What that score is, for people."""
    run: str = ""
    """Which of several seeds."""
    note: str = ""
    """A line that stays on the screen, said once."""
    is_over: bool = False
    """The last one of this training."""
    has_company: bool = False
    """Other seeds are trained at the same time."""


def score_label(name: str) -> str:
    """The name of a score in history and metrics, for people: "val_auroc" -> "AUROC", "val_mAP" -> "mAP"."""
    short = name.removeprefix("val_")
    return {"auroc": "AUROC"}.get(short, short)


OnStatus = Callable[[TrainStatus], None]
OnNote = Callable[[str], None]
"""Takes a line that the user should know and need not act on."""
