"""Streams of one video that end at different times: a few clips are trimmed, more is another cut of the film. No torch.

    length of each stream -> the shortest counts, or the reason why the video cannot be used

Programs that export features differ by a clip or two in where they stop, and published data do (13 of 1,550 videos of
QVHighlights). Where a stream is much shorter than another, its export broke off: trimmed to it, the rest of the video would be
answered with "absent" though nobody has looked.
"""

from collections.abc import Sequence

MOST_CLIPS, MOST_SHARE = 2, 0.05
"""A stream may be shorter by this many clips, or by this part of the longest, whichever is more."""
NAMED = 3
"""Videos that a note names."""
ROUNDING = 1e-6


def too_uneven(key: str, names: Sequence[str], lengths: Sequence[float], clip_s: float) -> str | None:
    """Why a video cannot be used, in one line; None where it can. names: of the spaces; lengths: of each, in clips."""
    shortest, longest = min(lengths), max(lengths)
    if longest - shortest <= max(MOST_CLIPS, MOST_SHARE * longest) + ROUNDING:
        return None
    short, long = names[lengths.index(shortest)], names[lengths.index(longest)]
    return (
        f"video {key!r}: {short} has {shortest:,.4g} clips ({shortest * clip_s:,.6g} s) of it, {long} has {longest:,.4g} "
        f"({longest * clip_s:,.6g} s)"
    )


def trimmed_note(num_trimmed: int) -> str:
    return f"{num_trimmed:,} videos are a little longer in one stream than in another: trimmed to the shortest"


def uneven_note(reasons: Sequence[str]) -> str:
    more = f"; and {len(reasons) - NAMED:,} more" if len(reasons) > NAMED else ""
    return f"{len(reasons):,} videos are left out, their streams differ in length: {'; '.join(reasons[:NAMED])}{more}"
