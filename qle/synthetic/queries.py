"""Which questions are asked about a script: everything that happens, and about as many things that nearly do.

    Script -> Query(concept, windows, events), absent ones without windows

An absent query resembles what is seen: the same colour on another object, the same object in another colour, another side,
a jet and an object in the wrong order or too far apart. Nothing absent is shown anywhere in the video.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from qle.data.annotations import Window
from qle.synthetic.script import FOLLOWS_WITHIN_S, Event, Script
from qle.synthetic.vocabulary import (
    ALL_PAIRS,
    HELD_OUT_PAIRS,
    JET,
    OBJECTS,
    SEEN_PAIRS,
    SIDES,
    Concept,
    Pair,
    pair_concept,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptQuery:
    """A question about one video and its true answer."""

    concept: Concept
    windows: tuple[Window, ...]
    events: tuple[Event, ...]
    """What is seen in the windows; empty with them."""


def queries_of(script: Script) -> list[ScriptQuery]:
    """Present ones in the order of their first windows, then absent ones."""
    shown = _shown(script)
    present = [
        ScriptQuery(
            concept=concept, windows=_windows(groups, script.seconds), events=tuple(e for g in groups for e in g)
        )
        for concept, groups in shown.items()
    ]
    if script.split == "composition":  # asks about what is new; the rest is there to be taken for it
        present = [
            query for query in present if query.concept.family == "pair" and query.concept.pair in HELD_OUT_PAIRS
        ]
    present.sort(key=lambda query: query.windows)
    absent = _absent(script, list(shown), [query.concept for query in present])
    return present + [ScriptQuery(concept=concept, windows=(), events=()) for concept in absent]


def _shown(script: Script) -> dict[Concept, list[tuple[Event, ...]]]:
    """Every concept that happens, with the events of each time that it does."""
    shown: dict[Concept, list[tuple[Event, ...]]] = {}
    for event in script.events:
        if event.kind == "grasper":
            shown.setdefault(Concept("grasper", side=event.side), []).append((event,))
        elif event.kind == "jet":
            shown.setdefault(JET, []).append((event,))
            for after in script.events:
                if after.kind == "object" and 0 <= after.start_s - event.end_s <= FOLLOWS_WITHIN_S:
                    shown.setdefault(Concept("sequence", object=after.object), []).append((event, after))
        else:
            shown.setdefault(pair_concept(event.pair), []).append((event,))
    return shown


def _windows(groups: Iterable[Sequence[Event]], seconds: float) -> tuple[Window, ...]:
    """Cut to the video, sorted; those that meet or overlap are one."""
    merged: list[Window] = []
    for start_s, end_s in sorted((min(e.start_s for e in g), max(e.end_s for e in g)) for g in groups):
        start_s, end_s = max(start_s, 0.0), min(end_s, seconds)
        if merged and start_s <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end_s, merged[-1][1]))
        else:
            merged.append((start_s, end_s))
    return tuple(merged)


def _absent(script: Script, shown: Sequence[Concept], present: Sequence[Concept]) -> list[Concept]:
    """One for each present query, of its family where there is one, so that the words alone tell nothing."""
    rng = np.random.default_rng([script.seed, 1])
    absent: list[Concept] = []

    def add(candidates: Sequence[Concept]) -> None:
        free = [concept for concept in candidates if concept not in shown and concept not in absent]
        if free:
            absent.append(free[int(rng.integers(len(free)))])

    for number, concept in enumerate(present):
        if concept.family == "pair":
            add(_near_pairs(script, concept.pair, rng, is_held_out=script.split == "composition" and number % 2 == 0))
        elif concept.family == "grasper":
            add([Concept("grasper", side=side) for side in SIDES])
    if script.split != "composition":
        num_sequences = sum(concept.family == "sequence" for concept in present)
        for _ in range(max(num_sequences, int(rng.random() < 0.15))):
            add(_sequences(script))
        add([JET])
    return absent


def _near_pairs(script: Script, pair: Pair, rng: np.random.Generator, *, is_held_out: bool) -> list[Concept]:
    """Pairs that share a word with what is seen, first of all swaps of two objects that are seen at the same time."""
    if is_held_out:  # asked about as often where they are absent, or else a new pair alone would mean yes
        return [pair_concept(other) for other in HELD_OUT_PAIRS]
    near = [other for other in _askable(script) if _resembles(other, pair)]
    swaps = [other for other in near if other in script.never_shown]
    return [pair_concept(other) for other in (swaps if swaps and rng.random() < 0.7 else near)]


def _askable(script: Script) -> tuple[Pair, ...]:
    return ALL_PAIRS if script.split == "composition" else SEEN_PAIRS


def _resembles(pair: Pair, other: Pair) -> bool:
    return pair != other and (pair[0] == other[0] or pair[1] == other[1])


def _sequences(script: Script) -> list[Concept]:
    """ "a water jet, then a ...": of objects that are seen, at another time, where there are some."""
    seen = {event.object for event in script.events if event.kind == "object"}
    return [Concept("sequence", object=name) for name in OBJECTS if name in seen] or [
        Concept("sequence", object=name) for name in OBJECTS
    ]
