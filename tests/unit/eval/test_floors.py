"""Priors of training annotations, and the floors made of them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from qle.data.annotations import Annotation
from qle.errors import CheckpointError
from qle.eval.floors import Priors, novelty, priors_of
from qle.eval.rows.floors import position_scores, query_blind_scores, query_rate_scores
from qle.eval.rows.scored import probabilities, row_table, smoothed_logits
from tests.made_scores import made_scores, scored_query


def annotation(
    windows: tuple[tuple[float, float], ...], duration_s: float | None, query: str = "a polyp", **rest: object
) -> Annotation:
    number = abs(hash((windows, duration_s, query, tuple(rest)))) % 1000
    return Annotation(qid=str(number), video="v.mp4", query=query, windows=windows, duration_s=duration_s, **rest)  # type: ignore[arg-type]


def test_position_is_where_things_happen_whatever_the_length() -> None:
    priors = priors_of([annotation(((50.0, 100.0),), 100.0), annotation(((10.0, 20.0),), 20.0), annotation((), None)])
    np.testing.assert_allclose(priors.position[:50], 0)
    np.testing.assert_allclose(priors.position[50:], 2 / 3)
    assert priors.base_rate == pytest.approx(1 / 3)
    assert priors.position_threshold == pytest.approx(2 / 3)
    assert priors.span == (0.5, 1.0)
    assert (priors.num_annotations, priors.num_without_duration) == (3, 0)


def test_lengths_may_come_from_the_cache_and_what_has_none_is_counted() -> None:
    asked = [annotation(((0.0, 5.0),), None)]
    assert priors_of(asked, {"v.mp4": 10.0}).base_rate == pytest.approx(0.5)
    without = priors_of(asked)
    assert (without.num_annotations, without.num_without_duration, without.base_rate) == (0, 1, 0)


def test_unlabelled_annotations_say_nothing() -> None:
    assert priors_of([annotation((), 10.0, is_labelled=False)]).num_annotations == 0


def test_frequent_queries_have_a_rate_and_rare_ones_none() -> None:
    frequent = [annotation(((0.0, 5.0),), 10.0) for _ in range(6)]
    priors = priors_of([*frequent, annotation(((0.0, 10.0),), 10.0, query="smoke")])
    assert dict(priors.query_rates) == {"a polyp": pytest.approx(0.5)}


def test_priors_survive_json() -> None:
    priors = priors_of([one.annotation for one in made_scores()])
    assert Priors.from_json(json.loads(json.dumps(priors.to_json(), allow_nan=False))) == priors
    with pytest.raises(CheckpointError, match="priors of the run"):
        Priors.from_json({"position": [1.0]})


def test_novelty_compares_videos_and_concepts() -> None:
    trained = [annotation(((0.0, 5.0),), 10.0, concept="polyp")]
    priors = priors_of(trained)
    assert novelty(trained, priors).num_trained_videos == 1
    other = Annotation(qid="1", video="w.mp4", query="a lesion", windows=(), concept="polyp")
    assert not novelty([other], priors).zero_shot, "the concept was trained on, in other words"
    new = Annotation(qid="1", video="w.mp4", query="somebody opens a door", windows=())
    found = novelty([new, other], priors)
    assert (found.zero_shot, found.num_trained_videos, found.unseen_concepts) == (False, 0, 0.5)
    assert novelty([new], priors).zero_shot


def test_videos_are_known_by_both_names_and_from_validation_too() -> None:
    """Another file that says "v" for "train/v.mp4" made a training video new, and validation videos always were."""
    trained = Annotation(qid="1", video="v", query="a polyp", windows=())
    val = Annotation(qid="2", video="w", query="a polyp", windows=())
    priors = priors_of([trained], {"v": 1.0}, val=[val], keys={"v": "train/v.mp4", "w": "val/w.mp4"})
    assert Priors.from_json(json.loads(json.dumps(priors.to_json()))) == priors
    asked = Annotation(qid="3", video="v.mp4", query="smoke", windows=())
    assert novelty([asked], priors).zero_shot
    known = novelty([asked], priors, {"v.mp4": "train/v.mp4"})
    assert (known.zero_shot, known.num_trained_videos) == (False, 1)
    chosen = novelty([replace(asked, video="w")], priors)
    assert (chosen.zero_shot, chosen.num_trained_videos, chosen.num_val_videos) == (False, 0, 1)


def test_query_blind_is_the_mean_over_the_queries_of_a_video() -> None:
    scored = [
        scored_query((), np.array([0.0, 2.0]), query="a", qid="0"),
        scored_query((), np.array([1.0]), query="a", qid="1", video="b.mp4"),
        scored_query((), np.array([0.0, -2.0]), query="b", qid="2"),
    ]
    table = row_table(scored)
    probability = probabilities(smoothed_logits(scored, 0.0))
    blind = query_blind_scores(table, probability)
    np.testing.assert_allclose(blind, [0.5, 0.5, probability[2], 0.5, 0.5], rtol=1e-6)


def test_floors_know_time_or_the_query_and_nothing_else() -> None:
    scored = made_scores(num_videos=3, rows=50)
    table = row_table(scored)
    priors = priors_of([one.annotation for one in scored])
    position = position_scores(table, priors).reshape(table.num_pairs, 50)
    np.testing.assert_array_equal(position, np.tile(position[0], (table.num_pairs, 1)))
    np.testing.assert_allclose(position[0], np.asarray(priors.position)[1::2])
    rates = query_rate_scores(table, scored, priors).reshape(table.num_pairs, 50)
    assert (rates == rates[:, :1]).all()
