"""Which cached rows stand for a video at a sample rate."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qle
from qle.cache.reader import Space, Video
from qle.cache.spaces import create_space
from qle.data.rows import check_rate, choose_rows, space_rate_fps
from qle.errors import ConfigError
from qle.extract.sampling import Sampling, plan_rows
from qle.types import SpaceSpec
from tests import tiny_cache as tiny

NTSC = 30000 / 1001
PTS = {
    "even.mp4": 1.4 + np.arange(60.0),
    "ntsc.mp4": np.arange(900) / NTSC,
    "hole.mp4": np.concatenate([np.arange(50) / 10, 20 + np.arange(50) / 10]),
    "one.mp4": np.array([3.0]),
}


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    spec = SpaceSpec(
        name="rows",
        hashed={"sampling": {"mode": "fps", "fps": 1.0, "stride": None}},
        streams=tiny.tiny_spec().streams,
        recorded={},
    )
    folder = create_space(tmp_path_factory.mktemp("rows") / "cache", spec)
    for key, pts_s in PTS.items():
        tiny.commit_rows(folder, key, pts_s, duration_s={"one.mp4": 8.0, "even.mp4": 60.0}.get(key, 0.0))
    return qle.open_cache(folder.path.parent).space()


@pytest.fixture
def make(tmp_path: Path) -> object:
    def commit(pts_s: list[float] | np.ndarray, **named: object) -> Video:
        folder = create_space(tmp_path / "cache", tiny.tiny_spec())
        tiny.commit_rows(folder, "a.mp4", np.asarray(pts_s), **named)  # type: ignore[arg-type]
        return qle.open_cache(tmp_path / "cache").space().video("a.mp4")

    return commit


def test_every_row_by_its_exact_time_from_the_beginning(space: Space) -> None:
    video = space.video("even.mp4")
    rows = choose_rows(video, None)
    assert rows.index.tolist() == list(range(60))
    np.testing.assert_array_equal(rows.times_s, video.pts - 1.4)
    assert rows.duration_s == 60.0
    assert (rows.edges_s[0], rows.edges_s[-1]) == (0.0, 60.0)
    assert rows.valid.all()


@pytest.mark.parametrize(("rate", "step"), [(1.0, 1), (0.5, 2), (0.25, 4), (0.1, 10)])
def test_lower_rates_take_every_nth_row(space: Space, rate: float, step: int) -> None:
    rows = choose_rows(space.video("even.mp4"), rate)
    assert rows.index.tolist() == list(range(0, 60, step))
    assert rows.valid.all()


def test_one_row_a_second_of_every_frame_are_the_frames_that_extraction_takes() -> None:
    """Otherwise a head trained on a space of all frames would not fit videos that were extracted at its rate."""
    pts_s = PTS["ntsc.mp4"]
    for fps in (1.0, 2.0, 7.0):
        plan = plan_rows(pts_s, 900 / NTSC, Fraction(1, 90000), Sampling(mode="fps", fps=fps))
        chosen = _choose(pts_s, fps, duration_s=900 / NTSC)
        assert chosen.tolist() == plan.frame_index.tolist()


def _choose(pts_s: np.ndarray, fps: float, duration_s: float) -> np.ndarray:
    class Facts:
        start_s = end_s = None
        fps = 0.0

    Facts.duration_s = duration_s  # type: ignore[attr-defined]
    video = type(
        "V", (), {"pts": pts_s, "valid": np.ones(len(pts_s), bool), "index": np.arange(len(pts_s)), "key": "v"}
    )
    video.record = type("R", (), {"source": Facts})  # type: ignore[attr-defined]
    return choose_rows(video, fps).index  # type: ignore[arg-type]


def test_the_rate_of_the_rows_themselves_takes_them_all(space: Space) -> None:
    assert choose_rows(space.video("ntsc.mp4"), 30.0).num_rows == 900
    assert choose_rows(space.video("ntsc.mp4"), NTSC).num_rows == 900


def test_a_rate_above_that_of_the_rows_says_both(space: Space) -> None:
    with pytest.raises(ConfigError, match=r"'even.mp4' has 1.0\d* rows a second, 2 were asked for") as error:
        choose_rows(space.video("even.mp4"), 2.0)
    assert "--fps 2" in str(error.value)
    with pytest.raises(ConfigError, match=r"has 1 rows a second, 1\.5 were"):
        check_rate(space, 1.5)
    check_rate(space, 1.0)
    check_rate(space, None)
    assert space_rate_fps(space) == 1.0


def test_more_rows_than_the_film_has_frames_are_never_advised(make) -> None:  # type: ignore[no-untyped-def]
    video = make(np.arange(20.0), fps=25.0)
    with pytest.raises(ConfigError, match="qle extract --fps 25"):
        choose_rows(video, 25.0)
    with pytest.raises(ConfigError, match="25 frames a second at most") as error:
        choose_rows(video, 1000.0)
    assert "qle extract" not in str(error.value)


@pytest.mark.parametrize("rate", [0.0, -1.0, np.nan, np.inf])
def test_rates_are_positive_numbers(space: Space, rate: float) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        choose_rows(space.video("even.mp4"), rate)


def test_nothing_is_shown_where_frames_are_missing(space: Space) -> None:
    """Ten frames a second until 5 s, nothing until 20 s: the last frame does not stand for a quarter of a minute."""
    rows = choose_rows(space.video("hole.mp4"), 1.0)
    assert rows.num_rows == 25
    assert np.flatnonzero(rows.valid).tolist() == [0, 1, 2, 3, 4, 5, 20, 21, 22, 23, 24]


def test_rows_that_repeat_a_frame_keep_their_own_validity(make) -> None:  # type: ignore[no-untyped-def]
    """A hole in a space of 1 row a second: rows 4..9 repeat frame 4 and are invalid but for the first."""
    pts_s = [0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 10, 11]
    valid = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1], dtype=bool)
    rows = choose_rows(make(pts_s, valid=valid), 0.5)
    assert rows.index.tolist() == [0, 2, 4, 6, 8, 10]
    assert rows.valid.tolist() == [True, True, True, False, False, True]


def test_a_slow_film_repeats_its_frames(make) -> None:  # type: ignore[no-untyped-def]
    rows = choose_rows(make([0, 0, 0, 2.5, 2.5, 5, 5, 5], duration_s=7.5), 0.5)
    assert rows.index.tolist()[:3] == [0, 2, 4]
    assert rows.valid.all()
    assert np.all(np.diff(rows.times_s) >= 0)


def test_a_video_of_one_row(space: Space) -> None:
    for rate in (None, 0.1):
        rows = choose_rows(space.video("one.mp4"), rate)
        assert (rows.index.tolist(), rows.edges_s.tolist()) == ([0], [0.0, 8.0])


def test_times_of_a_clip_count_from_its_beginning(make) -> None:  # type: ignore[no-untyped-def]
    """The frame on screen when a clip begins was stamped before it."""
    video = make(
        9.98 + np.arange(5.0),
        start_s=10.0,
        end_s=15.0,
        duration_s=100.0,
        fps=25.0,
        frame_index=249 + 25 * np.arange(5),
    )
    rows = choose_rows(video, None)
    np.testing.assert_allclose(rows.times_s, [0, 0.98, 1.98, 2.98, 3.98])
    assert (rows.duration_s, rows.edges_s[-1]) == (5.0, 5.0)


def test_a_clip_that_ends_behind_the_film_ends_with_it(make) -> None:  # type: ignore[no-untyped-def]
    video = make(
        96 + np.arange(4.0), start_s=96.0, end_s=120.0, duration_s=100.0, fps=25.0, frame_index=2400 + 25 * np.arange(4)
    )
    assert choose_rows(video, None).duration_s == pytest.approx(4.0)


def test_without_a_recorded_length_the_last_row_lasts_as_long_as_others(make) -> None:  # type: ignore[no-untyped-def]
    assert choose_rows(make([0.0, 0.5, 1.0]), None).duration_s == 1.5


@given(
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=40),
    rate=st.floats(0.05, 2),
)
def test_rows_are_in_order_and_inside_whatever_the_times(gaps: list[float], rate: float) -> None:
    pts_s = np.cumsum(gaps)
    duration_s = float(pts_s[-1] - pts_s[0]) + 0.5
    try:
        index = _choose(pts_s, rate, duration_s)
    except ConfigError:
        return
    assert index.min() >= 0
    assert index.max() < len(pts_s)
    assert np.all(np.diff(index) >= 0)
