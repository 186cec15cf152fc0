"""Moments that overlap, one below the other: which lane each is drawn in."""

from bisect import bisect
from collections.abc import Sequence


def lanes_of(spans: Sequence[tuple[float, float]]) -> list[int]:
    """The number of the lane of each (start, end), from 0. In their order each takes the first lane in which it overlaps
    nothing, so that the best of several moments, which comes first, lies on top. Moments that only touch share a lane."""
    lanes: list[list[tuple[float, float]]] = []
    numbers = []
    for span in spans:
        number = next((number for number, lane in enumerate(lanes) if _fits(lane, span)), len(lanes))
        if number == len(lanes):
            lanes.append([])
        lanes[number].insert(bisect(lanes[number], span), span)
        numbers.append(number)
    return numbers


def _fits(lane: Sequence[tuple[float, float]], span: tuple[float, float]) -> bool:
    """Whether a span overlaps none of a lane, whose spans are in order of time."""
    index = bisect(lane, span)
    is_after = index == 0 or lane[index - 1][1] <= span[0]
    return is_after and (index == len(lane) or span[1] <= lane[index][0])
