"""Made-up videos: what is asked is true, what is absent is not shown, and nothing but looking answers it."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from qle.errors import ConfigError
from qle.synthetic.annotate import Labels, label
from qle.synthetic.film import Film
from qle.synthetic.queries import ScriptQuery, queries_of
from qle.synthetic.script import APART_S, FOLLOWS_WITHIN_S, Event, Script, SyntheticConfig, write_script
from qle.synthetic.vocabulary import (
    ALL_PAIRS,
    COLOURS,
    HELD_OUT_PAIRS,
    JET,
    OBJECTS,
    SEEN_PAIRS,
    SIDES,
    Concept,
    pair_concept,
)

pytestmark = pytest.mark.slow

CONFIG = SyntheticConfig(size=96)
Scripts = dict[str, list[Script]]


@pytest.fixture(scope="module")
def scripts() -> Scripts:
    counts = {"train": 120, "val": 10, "test": 40, "composition": 40}
    return {split: [write_script(CONFIG, split, number) for number in range(count)] for split, count in counts.items()}


@pytest.fixture(scope="module")
def queries(scripts: Scripts) -> dict[str, list[tuple[Script, ScriptQuery]]]:
    return {split: [(s, query) for s in group for query in queries_of(s)] for split, group in scripts.items()}


@pytest.fixture(scope="module")
def labels() -> dict[str, list[Labels]]:
    return {
        split: [label(write_script(CONFIG, split, number), CONFIG) for number in range(count)]
        for split, count in (("train", 12), ("test", 6))
    }


def _events(script: Script, kind: str) -> list[Event]:
    return [event for event in script.events if event.kind == kind]


def test_held_out_pairs_cover_every_word() -> None:
    assert sorted(colour for colour, _ in HELD_OUT_PAIRS) == sorted(COLOURS)
    assert {name for _, name in HELD_OUT_PAIRS} == set(OBJECTS)
    assert {colour for colour, _ in SEEN_PAIRS} == set(COLOURS)
    assert len(SEEN_PAIRS) == 15


def test_held_out_pairs_are_neither_shown_nor_asked_elsewhere(
    scripts: Scripts, queries: dict[str, list[tuple[Script, ScriptQuery]]]
) -> None:
    for split in ("train", "val", "test"):
        shown = {event.pair for script in scripts[split] for event in _events(script, "object")}
        asked = {query.concept.pair for _, query in queries[split] if query.concept.family == "pair"}
        assert not (shown | asked) & set(HELD_OUT_PAIRS)
    present = {query.concept.pair for _, query in queries["composition"] if query.windows}
    absent = {query.concept.pair for _, query in queries["composition"] if not query.windows}
    assert present == set(HELD_OUT_PAIRS)
    assert absent >= set(HELD_OUT_PAIRS)
    assert absent & set(SEEN_PAIRS)


def test_no_wording_means_two_things_and_paraphrases_are_new() -> None:
    concepts = [*map(pair_concept, ALL_PAIRS), JET, *(Concept("grasper", side=side) for side in SIDES)]
    concepts += [Concept("sequence", object=name) for name in OBJECTS]
    known = [words for concept in concepts for words in concept.wordings()]
    unseen = [words for concept in concepts for words in concept.wordings(is_unseen=True)]
    assert len(set(known + unseen)) == len(known) + len(unseen)
    assert len({concept.key for concept in concepts}) == len({concept.slug for concept in concepts}) == len(concepts)


def test_windows_hold_exactly_what_is_shown(queries: dict[str, list[tuple[Script, ScriptQuery]]]) -> None:
    for script, query in (pair for group in queries.values() for pair in group):
        assert all(0 <= start_s < end_s <= script.seconds for start_s, end_s in query.windows)
        assert all(before[1] < after[0] for before, after in pairwise(query.windows))
        concept = query.concept
        if concept.family == "pair":
            spans = [(e.start_s, e.end_s) for e in _events(script, "object") if e.pair == concept.pair]
        elif concept.family == "grasper":
            spans = [(e.start_s, e.end_s) for e in _events(script, "grasper") if e.side == concept.side]
        elif concept.family == "jet":
            spans = [(e.start_s, e.end_s) for e in _events(script, "jet")]
        else:
            spans = [
                (jet.start_s, thing.end_s)
                for jet in _events(script, "jet")
                for thing in _events(script, "object")
                if thing.object == concept.object and 0 <= thing.start_s - jet.end_s <= FOLLOWS_WITHIN_S
            ]
        at_s = np.arange(0, script.seconds, 0.05)
        happens = np.any([(at_s > a) & (at_s < b) for a, b in spans] or [at_s < 0], axis=0)
        told = np.any([(at_s > a) & (at_s < b) for a, b in query.windows] or [at_s < 0], axis=0)
        assert np.mean(happens != told) < 0.01


def test_every_seen_thing_is_asked_about_once(scripts: Scripts) -> None:
    for script in scripts["train"]:
        asked = [query.concept for query in queries_of(script)]
        assert len(set(asked)) == len(asked)
        assert {pair_concept(event.pair) for event in _events(script, "object")} <= set(asked)
        assert all(Concept("grasper", side=event.side) in asked for event in _events(script, "grasper"))
        assert JET in asked


def test_no_sequence_is_on_the_edge(scripts: Scripts) -> None:
    """An object begins at once after a jet, or long after: nobody can argue about a label."""
    for script in (s for group in scripts.values() for s in group):
        for jet in _events(script, "jet"):
            for thing in _events(script, "object"):
                gap_s = thing.start_s - jet.end_s
                assert gap_s < -(jet.end_s - jet.start_s) or 0 <= gap_s < 0.75 or gap_s > APART_S - 0.02


def test_two_things_at_once_leave_their_swap_absent(scripts: Scripts) -> None:
    num_swaps_asked = 0
    for script in scripts["train"]:
        shown = {event.pair for event in _events(script, "object")}
        assert not shown & script.never_shown
        asked = {query.concept.pair for query in queries_of(script) if not query.windows}
        num_swaps_asked += bool(asked & script.never_shown)
    assert num_swaps_asked > len(scripts["train"]) / 3


def test_absent_queries_resemble_what_is_seen_and_are_about_as_many(
    queries: dict[str, list[tuple[Script, ScriptQuery]]],
) -> None:
    for split, group in queries.items():
        share = np.mean([bool(query.windows) for _, query in group])
        assert 0.4 < share < 0.62, split
    for script, query in queries["train"]:
        if not query.windows and query.concept.family == "pair":
            words = {word for event in _events(script, "object") for word in event.pair}
            assert set(query.concept.pair) & words


def test_words_alone_tell_little(queries: dict[str, list[tuple[Script, ScriptQuery]]]) -> None:
    """How often each concept happened in training, asked of the test: the floor of a head that is blind."""
    keys = {query.concept.key for _, query in queries["train"]}
    rates = {k: np.mean([bool(q.windows) for _, q in queries["train"] if q.concept.key == k]) for k in keys}
    present = np.array([rates[q.concept.key] for _, q in queries["test"] if q.windows])
    absent = np.array([rates[q.concept.key] for _, q in queries["test"] if not q.windows])
    assert _auroc(present, absent) < 0.65


def test_when_alone_tells_little(queries: dict[str, list[tuple[Script, ScriptQuery]]]) -> None:
    """The share of each tenth of a video that a training query covers, asked of the test; and of a constant."""
    at_s = (np.arange(40) + 0.5) * CONFIG.seconds / 40

    def happening(split: str) -> np.ndarray:
        present = [query.windows for _, query in queries[split] if query.windows]
        return np.array([np.any([(at_s >= a) & (at_s < b) for a, b in windows], axis=0) for windows in present])

    histogram = happening("train").mean(axis=0)
    truth = happening("test")
    scores = np.broadcast_to(histogram, truth.shape)
    assert 0.4 < _auroc(scores[truth], scores[~truth]) < 0.6
    assert truth.mean() < 0.25  # precision of "always"


def test_where_alone_tells_little(labels: dict[str, list[Labels]]) -> None:
    """Masks of training summed up, asked of the test; and pointing at the middle, or at the best single place."""
    train, test = (
        np.concatenate([track.masks for made in labels[split] for track in made.tracks.values()])
        for split in ("train", "test")
    )
    prior = train.mean(axis=0)
    scores = np.broadcast_to(prior, test.shape)
    assert 0.4 < _auroc(scores[test], scores[~test]) < 0.67
    height, width = prior.shape
    assert test[:, height // 2, width // 2].mean() < 0.2
    assert test[(slice(None), *np.unravel_index(prior.argmax(), prior.shape))].mean() < 0.2


def test_things_are_small_and_wholly_known(labels: dict[str, list[Labels]]) -> None:
    """1 to 5 % of the picture, for each kind; a sequence's mask is its jet, then its object."""
    for made in labels["train"] + labels["test"]:
        for name, track in made.tracks.items():
            area = track.masks.mean(axis=(1, 2))
            assert area.min() >= 0.01, name
            assert area.max() <= 0.05, name
        for annotation in made.annotations:
            assert annotation.is_present == bool(annotation.masks) == bool(annotation.boxes)
            for box in annotation.boxes:
                assert 0 <= box.left < box.right <= 1
                assert 0 <= box.top < box.bottom <= 1
                assert any(start_s <= box.time_s <= end_s for start_s, end_s in annotation.windows)


def test_masks_and_boxes_are_what_the_pictures_show() -> None:
    """The pixels that an object changes are its mask, give or take its soft border and its shadow."""
    config = SyntheticConfig(size=96, seconds=8)
    script = next(s for n in range(9) if _events(s := write_script(config, "train", n), "object"))
    event = _events(script, "object")[0]
    time_s = round((max(event.start_s, 0) + min(event.end_s, 8)) / 2 * 8) / 8
    kept = tuple(other for other in script.events if other is not event)
    without = Script(split="train", number=0, seconds=8, seed=script.seed, events=kept, never_shown=frozenset())
    film = Film(script, config)
    pictures = [f.frame(round(time_s * 8)).astype(int) for f in (film, Film(without, config))]
    changed = np.abs(pictures[0] - pictures[1]).max(axis=-1) > 40
    mask = film.seen(event, time_s)
    assert (changed & mask).sum() > 0.8 * mask.sum()
    assert (changed & ~mask).sum() < 0.5 * mask.sum()


def test_colours_can_be_told_apart() -> None:
    """Mean colour of each object's pixels: nearest of five centres, whatever the light; walls are none of them."""
    means: dict[str, list[np.ndarray]] = {colour: [] for colour in COLOURS}
    for number in range(10):
        script = write_script(CONFIG, "train", number)
        film = Film(script, CONFIG)
        for event in _events(script, "object"):
            time_s = round((max(event.start_s, 0) + min(event.end_s, 20)) / 2 * 8) / 8
            mask = film.seen(event, time_s)
            if mask.any():
                rgb = film.frame(round(time_s * 8))[mask].mean(axis=0)
                means[event.colour].append(rgb / rgb.sum())
    centres = {colour: np.mean(seen, axis=0) for colour, seen in means.items()}
    right = [
        colour == min(centres, key=lambda other: float(np.linalg.norm(centres[other] - rgb)))
        for colour, seen in means.items()
        for rgb in seen
    ]
    assert np.mean(right) > 0.93


def test_equal_seeds_equal_bytes_and_others_differ() -> None:
    config = SyntheticConfig(size=64, seconds=4)
    script = write_script(config, "val", 1)
    assert script == write_script(config, "val", 1)
    first, again = list(Film(script, config).frames()), list(Film(script, config).frames())
    assert len(first) == 32
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert np.array_equal(Film(script, config).frame(20), first[20])
    assert label(script, config).annotations == label(script, config).annotations
    for other in (write_script(config, "val", 2), write_script(SyntheticConfig(size=64, seconds=4, seed=1), "val", 1)):
        assert not np.array_equal(Film(other, config).frame(20), first[20])


def test_annotations_of_test_videos_come_in_two_wordings(labels: dict[str, list[Labels]]) -> None:
    for made in labels["test"]:
        assert [a.concept for a in made.annotations] == [a.concept for a in made.paraphrases]
        assert [a.windows for a in made.annotations] == [a.windows for a in made.paraphrases]
        assert not {a.query for a in made.annotations} & {a.query for a in made.paraphrases}
        assert {a.split for a in made.paraphrases} == {"paraphrase"}
    assert not any(made.paraphrases for made in labels["train"])


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"size": 63}, {"seconds": 1.0}, {"fps": 0.0}, {"num_val": -1}, {"seed": -1}):
        with pytest.raises(ConfigError):
            SyntheticConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.slow
def test_films_need_no_torch_and_no_video_library() -> None:
    code = "import sys, qle.synthetic.annotate; print({'torch', 'av', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def _auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Ties count half."""
    ordered = np.sort(negative)
    below, upto = (np.searchsorted(ordered, positive, side=side) for side in ("left", "right"))
    return float(((below + upto) / 2).mean() / len(ordered))
