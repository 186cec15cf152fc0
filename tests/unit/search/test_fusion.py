"""Two scores become one: bounded, in the right order, fitted, and bound to the runs that they were fitted for."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qle.errors import ConfigError, InputError
from qle.search.fusion import (
    TEMPERATURES,
    WEIGHTS,
    Fusion,
    Scored,
    fit_temperature,
    fit_weight,
    fuse,
    log_shares,
    read_fusion,
    write_fusion,
)

SIMILARITY = np.array([0.30, 0.28, 0.10], dtype=np.float32)
MOMENTS = Scored(video=np.array([0, 0, 1, 2]), probability=np.array([0.4, 0.1, 0.6, 0.99]))


def order_at(weight: float) -> list[int]:
    return fuse(MOMENTS, SIMILARITY, Fusion(weight=weight, temperature=0.05)).order.tolist()


def test_the_weight_decides_between_video_and_moment():
    assert order_at(1.0) == [0, 1, 2, 3]
    assert order_at(0.0) == [3, 2, 0, 1]
    assert order_at(0.2) == [2, 0, 3, 1]


def test_the_score_is_what_is_said_of_it():
    fused = fuse(MOMENTS, SIMILARITY, Fusion(weight=0.25, temperature=0.05))
    share = np.exp(SIMILARITY / 0.05) / np.exp(SIMILARITY / 0.05).sum()
    expected = share[MOMENTS.video] ** 0.25 * MOMENTS.probability**0.75
    assert np.allclose(fused.score, np.sort(expected)[::-1], rtol=1e-5)


@pytest.mark.slow
@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=6),
    st.lists(st.floats(0, 1), max_size=12),
    st.floats(0, 1),
    st.floats(1e-3, 1),
)
def test_scores_are_in_0_to_1_and_fall(similarity, probability, weight, temperature):
    video = np.arange(len(probability)) % len(similarity)
    moments = Scored(video=video, probability=np.array(probability))
    found = fuse(moments, np.array(similarity, np.float32), Fusion(weight=weight, temperature=temperature))
    assert sorted(found.order.tolist()) == list(range(len(probability)))
    assert ((found.score >= 0) & (found.score <= 1)).all()
    assert (np.diff(found.score) <= 0).all()
    assert (np.diff(found.level) >= 0).all()


def test_only_what_is_equal_in_everything_is_a_tie():
    moments = Scored(video=np.array([0, 1, 1, 2]), probability=np.array([0.5, 0.5, 0.5, 0.7]))
    found = fuse(moments, np.array([0.2, 0.2, 0.2], np.float32), Fusion(weight=1.0))
    assert found.level.tolist() == [0, 1, 1, 1]  # the surer one first, though only the video counts
    found = fuse(moments, np.array([0.2, 0.3, 0.2], np.float32), Fusion(weight=0.0))
    assert found.level.tolist() == [0, 1, 1, 2]


@pytest.mark.slow
def test_the_temperature_is_the_likeliest():
    """Queries whose right video is drawn from the softmax at a known temperature."""
    rng = np.random.default_rng(0)
    similarity = [rng.uniform(0, 0.5, 30).astype(np.float32) for _ in range(1500)]
    right = []
    for one in similarity:
        drawn = rng.choice(30, p=np.exp(log_shares(one, 0.08)))
        right.append(np.arange(30) == drawn)
    assert fit_temperature(similarity, right) == pytest.approx(0.08, rel=0.1)


def test_without_a_mistake_the_temperature_stays_in_its_range():
    similarity = [np.array([0.9, 0.1], np.float32)] * 3
    assert fit_temperature(similarity, [np.array([True, False])] * 3) == pytest.approx(TEMPERATURES[0], rel=1e-3)


def test_the_weight_is_the_middle_of_the_best():
    assert fit_weight(lambda weight: (float(0.29 < weight < 0.51), 1.0)) == pytest.approx(0.4)
    assert fit_weight(lambda weight: (1.0, weight)) == WEIGHTS[-1]


def test_a_file_of_weights_knows_its_runs(tmp_path):
    path, runs = tmp_path / "fusion.json", {"retriever": "a", "localizer": "b"}
    fusion = Fusion(weight=0.7, temperature=0.02, fitted={"runs": runs})
    write_fusion(path, fusion)
    assert read_fusion(path, runs) == fusion
    with pytest.raises(ConfigError, match="fitted for another localizer"):
        read_fusion(path, runs | {"localizer": "c"})
    values = json.loads(path.read_text())
    for wrong in ({"lambda": 2}, {"tau": 0}, {"kind": "x"}, {"tau": "warm"}):
        path.write_text(json.dumps(values | wrong))
        with pytest.raises(InputError, match="no weights of a search"):
            read_fusion(path, runs)
    with pytest.raises(InputError, match="cannot be read"):
        read_fusion(tmp_path / "none.json", runs)
