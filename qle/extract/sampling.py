"""All maths between time and index: which frame each row describes, and how a decoder gets to those frames cheaply.

    display times + Sampling --plan_rows--> RowPlan --decode_runs--> DecodeRuns (where to seek, where to go straight on)
                                                    --split_rows---> ranges of rows that may decode in parallel

Numpy only and without state, so that every rule here can be tested on made-up videos. Indices are never turned into times by
a frame rate: a rate is an average, and half of all screen recordings and phone videos do not keep it. A row for time t is the
frame *on screen* at t, the last one whose stamp is not after t.
"""

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from qle.errors import ConfigError, DecodeError
from qle.types import RowPlan

HOLE_FACTOR = 4.0
"""A frame that stays longer than this many times what its neighbours do was not shown all that time: frames are missing."""
NEIGHBOURS = 3
"""Distances on each side that say how long frames last around here: few, so that four slow frames are a slow stretch."""
MOST_STEP_S = 7 * 86_400.0
"""Between two frames, or for the last one to stay: what is stamped further off is damage. No recording pauses so long."""
MOST_STILL_S = 6 * 3_600.0
"""One picture is not believed to stay longer, whatever lies around it: what follows is a hole."""
MOST_HOLE_S = 120.0
"""So far into a hole there are rows, invalid ones; a longer hole has none behind, since they could only repeat one frame."""
MOST_ROWS, MOST_ROWS_EACH = 1_000_000, 1_000
"""So many rows may any video have, and so many more for each of its frames; more cannot mean anything."""
SEEK_COST_FRAMES = 6
"""A seek costs about as much as decoding this many frames (measured: docs/decisions/0002-decoders.md)."""
NO_SEEK = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which moments of a video become rows. Part of the space."""

    mode: Literal["fps", "native", "stride"]
    """fps: an even grid of times. native: every frame. stride: every Nth frame."""
    fps: float | None = None
    """Rows per second, only with mode fps."""
    stride: int | None = None
    """Only with mode stride."""

    def __post_init__(self) -> None:
        if (self.fps is not None) != (self.mode == "fps") or (self.stride is not None) != (self.mode == "stride"):
            raise ConfigError(
                f"sampling {self.mode}: got fps={self.fps}, stride={self.stride}; give what the mode needs, no more"
            )
        if self.fps is not None and not 0 < self.fps < 1e6:
            raise ConfigError(
                f"--fps {self.fps:g}: expected rows a second above 0 and below a million\n"
                "use e.g. --fps 1, or --fps native for every frame"
            )
        if self.stride is not None and self.stride < 1:
            raise ConfigError(f"--stride must be 1 or more, got {self.stride}")

    @property
    def label(self) -> str:
        """Readable, for names of folders: 1fps, 0.5fps, native, stride4."""
        return {"fps": f"{self.fps:g}fps" if self.fps else "", "native": "native", "stride": f"stride{self.stride}"}[
            self.mode
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeRuns:
    """The frames to decode and how to reach each: one after another, or by a jump to a key frame."""

    frames: np.ndarray
    """(frames,) int64: numbers in display order, strictly increasing."""
    seek_to: np.ndarray
    """(frames,) int64: number of the key frame to jump to before this frame, or NO_SEEK to go straight on."""

    @property
    def num_seeks(self) -> int:
        return int((self.seek_to != NO_SEEK).sum())


def plan_rows(
    pts_s: np.ndarray,
    end_s: float,
    time_base: Fraction,
    sampling: Sampling,
    from_s: float | None = None,
    until_s: float | None = None,
) -> RowPlan:
    """The rows of one video, or of its part [from_s, until_s) in container time.

    There is at least one row when any frame is on screen in that part; a part outside the video has none. Time and memory go
    with the number of frames, not with the seconds between them. DecodeError (kind "timestamps") where stamps mean nothing.
    """
    _check_steps(pts_s, end_s)
    slack = stamp_slack_s(pts_s, time_base)
    start = float(pts_s[0]) if from_s is None else max(from_s, float(pts_s[0]))
    stop = end_s if until_s is None else min(until_s, end_s)
    is_past = from_s is not None and from_s >= end_s and from_s > pts_s[-1]
    if is_past or (until_s is not None and until_s <= start):
        return _row_plan(np.zeros(0, np.int64), pts_s, np.zeros(0, bool))
    if sampling.mode == "fps":
        times = _times(pts_s, end_s, (start, stop - slack), float(sampling.fps or 0))
        shown = frame_at(pts_s, times, slack)
        return _row_plan(shown, pts_s, _is_on_screen(pts_s, end_s, times, shown, slack))
    first = int(np.searchsorted(pts_s, start - slack))
    last = int(np.searchsorted(pts_s, stop - slack)) if until_s is not None else len(pts_s)
    wanted = np.arange(first, last, sampling.stride or 1, dtype=np.int64)
    if len(wanted) == 0:
        wanted = frame_at(pts_s, np.array([start]), slack)
    return _row_plan(wanted, pts_s, np.ones(len(wanted), bool))


def stamp_slack_s(pts_s: np.ndarray, time_base: Fraction) -> float:
    """How far a stamp may lie behind the true time: half a tick, because stamps are rounded to ticks.

    Where a tick is as long as a frame (AVI, some MP4: time base 1/30 at 30 fps) stamps are exact, and half a tick of slack
    would show frames before their time; there only float noise is forgiven.
    """
    tick = float(time_base)
    if len(pts_s) > 1 and tick * 4 > float(np.median(np.diff(pts_s))):
        return tick * 1e-4
    return tick / 2


def frame_at(pts_s: np.ndarray, times_s: np.ndarray, slack_s: float = 0.0) -> np.ndarray:
    """Numbers of the frames that are on screen at these times: the last stamp that is not later, or the first frame."""
    shown = np.searchsorted(pts_s, times_s + slack_s, side="right") - 1
    return np.maximum(shown, 0).astype(np.int64)


def screen_time_s(pts_s: np.ndarray, end_s: float, frames: np.ndarray) -> np.ndarray:
    """How long each of `frames` is really on screen: until the next one, unless frames are missing in between.

    A distance counts as a hole when it is HOLE_FACTOR times the median of the distances before it *and* of those after it,
    so that 10 fps after 30 fps stays a slow stretch. A frame before a hole lasts as long as its neighbours do. Where there are
    no neighbours, or they are as slow, only what exceeds MOST_STILL_S is a hole.
    """
    gaps = np.append(
        np.diff(pts_s), max(end_s - float(pts_s[-1]), 0.0)
    )  # when the last one ends the container itself says
    lasting: np.ndarray = gaps[frames]
    inner = frames < len(gaps) - 1
    suspects = np.flatnonzero(
        inner & (lasting > HOLE_FACTOR * gaps[:-1].min(initial=np.inf))
    )  # none at a constant rate
    if len(suspects):
        before = _median_around(gaps[:-1], frames[suspects], step=-1)
        after = _median_around(gaps[:-1], frames[suspects], step=1)
        usual = np.maximum(before, after)
        is_hole = (usual > 0) & (lasting[suspects] > HOLE_FACTOR * usual)
        lasting[suspects] = np.where(is_hole, usual, lasting[suspects])
    endless = lasting > MOST_STILL_S
    if endless.any():
        lasting[endless] = min(float(np.min(gaps[gaps > 0], initial=1.0)), 1.0)
    return lasting


def decode_runs(frame_index: np.ndarray, is_key: np.ndarray) -> DecodeRuns:
    """The cheapest way through these frames (non-decreasing, repeats allowed) by the key-frame table.

    From one wanted frame to the next a decoder goes straight on, unless a key frame lies so far ahead that the jump saves
    more frames than it costs. Frame 0 is reached by opening the file, never by a jump.
    """
    frames = np.unique(frame_index)
    keys = np.flatnonzero(is_key)
    if len(frames) == 0 or len(keys) == 0:
        return DecodeRuns(frames=frames, seek_to=np.full(len(frames), NO_SEEK, np.int64))
    behind = np.searchsorted(keys, frames, side="right") - 1
    key = np.where(behind >= 0, keys[np.maximum(behind, 0)], 0)
    position = np.concatenate([[0], frames[:-1] + 1])  # the next frame that comes out without a jump
    is_jump = key - position > SEEK_COST_FRAMES
    return DecodeRuns(frames=frames, seek_to=np.where(is_jump, key, NO_SEEK).astype(np.int64))


def num_decoded_frames(runs: DecodeRuns) -> int:
    """Frames that a decoder goes through for these runs; what a dry run and a balance of work count."""
    if len(runs.frames) == 0:
        return 0
    begin = np.concatenate([[0], runs.frames[:-1] + 1])
    begin = np.where(runs.seek_to != NO_SEEK, runs.seek_to, begin)
    return int((runs.frames - begin + 1).sum()) + SEEK_COST_FRAMES * runs.num_seeks


def split_rows(
    frame_index: np.ndarray, is_key: np.ndarray, num_parts: int, min_frames: int = 500
) -> list[tuple[int, int]]:
    """Ranges [start, stop) of rows, at most `num_parts`, that decode apart from one another with little wasted lead-in.

    Each part begins at the row that lies closest behind a key frame, near where an even cut would be. Parts shorter than
    `min_frames` decoded frames are not worth a process of their own.
    """
    num_rows = len(frame_index)
    if num_rows == 0:
        return []
    span = int(frame_index[-1] - frame_index[0]) + 1
    num_parts = max(1, min(num_parts, span // max(1, min_frames), num_rows))
    keys = np.flatnonzero(is_key)
    if num_parts == 1 or len(keys) == 0:
        return [(0, num_rows)]
    behind = np.searchsorted(keys, frame_index, side="right") - 1
    lead_in = frame_index - np.where(behind >= 0, keys[np.maximum(behind, 0)], 0)
    cuts = [0]
    for part in range(1, num_parts):
        even = frame_index[0] + span * part / num_parts
        reach = span / num_parts / 2
        low, high = np.searchsorted(frame_index, [even - reach, even + reach])
        candidates = np.arange(max(low, cuts[-1] + 1), high)
        if len(candidates):
            # A frame of lead-in and a frame of imbalance cost the same: both are decoded while others wait.
            cost = lead_in[candidates] + np.abs(frame_index[candidates] - even)
            cuts.append(int(candidates[np.argmin(cost)]))
    return list(zip(cuts, [*cuts[1:], num_rows], strict=True))


def _check_steps(pts_s: np.ndarray, end_s: float) -> None:
    """DecodeError for a frame that is stamped impossibly far behind the one before it, or never ends."""
    steps = np.diff(pts_s, append=max(end_s, float(pts_s[-1])))
    worst = int(np.argmax(steps))
    if steps[worst] > MOST_STEP_S:
        where = (
            f"frame {worst + 1} is stamped {pts_s[worst + 1]:.3f} s, {steps[worst]:.0f} s after the one before it"
            if worst + 1 < len(pts_s)
            else f"the last frame, stamped {pts_s[-1]:.3f} s, is said to stay for {steps[worst]:.0f} s"
        )
        raise DecodeError(f"{where}: its timestamps are damaged. Re-encode or repair the file.", kind="timestamps")


def _times(pts_s: np.ndarray, end_s: float, part: tuple[float, float], fps: float) -> np.ndarray:
    """start + k/fps below stop, but for those deep inside long holes; multiplied, not summed, so that hour ten is as exact
    as second one. The first one always."""
    start, stop = part
    stretches = _stretches(pts_s, end_s, start, stop)
    begin = np.maximum(np.ceil((stretches[:, 0] - start) * fps - 1e-6), 0)
    counts = np.maximum(np.ceil((stretches[:, 1] - start) * fps) + 1 - begin, 0)
    if counts.sum() > MOST_ROWS + MOST_ROWS_EACH * len(pts_s):
        longest = int(np.argmax(np.diff(pts_s, append=end_s)))
        raise DecodeError(
            f"{counts.sum():.3g} rows at {fps:g} fps from {len(pts_s)} frames: their timestamps are damaged, or the rate is too "
            f"high.\nLongest is frame {longest}, stamped {pts_s[longest]:.3f} s. Use a lower --fps, or --fps native.",
            kind="timestamps",
        )
    numbers = np.concatenate([first + np.arange(int(count)) for first, count in zip(begin, counts, strict=True)])
    times: np.ndarray = start + np.unique(np.append(numbers, 0)) / fps
    return times[: max(1, int(np.searchsorted(times, stop, side="left")))]


def _stretches(pts_s: np.ndarray, end_s: float, start: float, stop: float) -> np.ndarray:
    """(stretches, 2): seconds from .. to that are to have rows, in order, the first from `start` on; long holes lie between."""
    lasting = screen_time_s(pts_s, end_s, np.arange(len(pts_s)))
    ends = np.append(pts_s[1:], max(end_s, float(pts_s[-1])))
    holes = np.flatnonzero(ends - pts_s > lasting + MOST_HOLE_S)
    begins = np.concatenate([[start], np.maximum(ends[holes], start)])
    stops = np.concatenate([(pts_s + lasting)[holes] + MOST_HOLE_S, [stop]])
    stops[0] = max(stops[0], start)
    return np.stack([begins, np.minimum(stops, stop)], axis=1)


def _is_on_screen(pts_s: np.ndarray, end_s: float, times: np.ndarray, shown: np.ndarray, slack: float) -> np.ndarray:
    """True where the time lies in the frame's screen time or within half a frame of it."""
    lasting = screen_time_s(pts_s, end_s, shown)
    begin = pts_s[shown]
    on_screen: np.ndarray = (times >= begin - lasting / 2 - slack) & (times < begin + lasting * 1.5 + slack)
    return on_screen


def _median_around(gaps: np.ndarray, gap_index: np.ndarray, step: int) -> np.ndarray:
    """Median of up to NEIGHBOURS distances before (step -1) or after (step 1) each index; 0 where there are none."""
    index = gap_index[:, None] + step * np.arange(1, NEIGHBOURS + 1)
    exists = (index >= 0) & (index < len(gaps))
    window = np.sort(np.where(exists, gaps[np.clip(index, 0, len(gaps) - 1)], np.inf), axis=1)
    count = exists.sum(axis=1)
    middle = window[np.arange(len(gap_index)), np.maximum(count // 2, 0)]
    lower = window[np.arange(len(gap_index)), np.maximum((count - 1) // 2, 0)]
    return np.where(count > 0, (middle + lower) / 2, 0.0)


def _row_plan(frame_index: np.ndarray, pts_s: np.ndarray, is_valid: np.ndarray) -> RowPlan:
    return RowPlan(frame_index=frame_index, pts_s=pts_s[frame_index].astype(np.float64), is_valid=is_valid)
