"""Can anything be told apart? A training without a single positive, or without a single negative, says so before its first step.

Such a training runs to its end and looks healthy: its loss falls, since always saying no, or always yes, is right. So it is
refused unless the user has asked for it (`--allow-one-sided`), and then the run notes what was missing.
"""

from qle.errors import AnnotationError

FLAG = "--allow-one-sided"


def check_sides(missing: dict[str, str], *, allow: bool) -> tuple[str, ...]:
    """AnnotationError for the first side that is missing, or notes about all of them where that is allowed.

    missing: what there is none of ("positive", "negative") -> why, and what annotations would give one.
    """
    if missing and not allow:
        side, (why, advice) = next((side, reason.split("\n")) for side, reason in missing.items())
        raise AnnotationError(f"--annotations: there is no {side} to learn from: {why}\n{advice}, or go on with {FLAG}")
    return tuple(f"training has no {side}: {reason.splitlines()[0]}" for side, reason in missing.items())
