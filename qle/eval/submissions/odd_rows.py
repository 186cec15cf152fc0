"""What is odd in rows of predictions though it can be measured: told beside the numbers, since it changes how they are read.

rows + {qid: (video, length)} -> counts by kind, and of each kind the first row by its number and qid
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from qle.eval.submissions.rows import CLIP_S, SALIENCY, WINDOWS, Row, checked_numbers

Asked = Mapping[str, tuple[str | None, float | None]]
"""Video and length in seconds by qid as text."""


def odd_rows(rows: Sequence[Row], asked: Asked) -> tuple[dict[str, int], dict[str, str]]:
    """Counts, and where the first of each kind stands. What is no prediction at all is refused elsewhere."""
    counts: dict[str, int] = {}
    first_rows: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        for kind in _kinds(row, *asked.get(str(row.get("qid")), (None, None))):
            counts[kind] = counts.get(kind, 0) + 1
            first_rows.setdefault(kind, f"row {number} (qid {row.get('qid')!r})")
    return counts, first_rows


def _kinds(row: Row, video: str | None, duration_s: float | None) -> list[str]:
    kinds = []
    windows = row.get(WINDOWS)
    listed = [window for window in windows if isinstance(window, list)] if isinstance(windows, list) else []
    scores = checked_numbers([window[2] for window in listed if len(window) > 2])
    if scores is not None and (scores[1:] > scores[:-1]).any():
        kinds.append("unsorted_lists")
    said = row.get("vid")
    if isinstance(said, str) and video is not None and PurePosixPath(said).stem != PurePosixPath(video).stem:
        kinds.append("other_videos")
    if duration_s is None or duration_s <= 0:
        return kinds
    starts = checked_numbers([window[0] for window in listed if window])
    if starts is not None and (starts >= duration_s).any():
        kinds.append("windows_behind_the_end")
    saliency, own = row.get(SALIENCY), row.get("qle")
    clip_s = checked_numbers([own.get("clip_s", CLIP_S)] if isinstance(own, dict) else [CLIP_S])
    if isinstance(saliency, list) and saliency and clip_s is not None and clip_s[0] > 0:
        num_clips = duration_s / float(clip_s[0])
        if not num_clips - 1 <= len(saliency) <= num_clips + 1:  # the last clip may be a part of one
            kinds.append("wrong_saliency_lengths")
    return kinds
