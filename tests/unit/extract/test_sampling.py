"""Which frame a row describes, on made-up videos: rates, gaps, holes, rounding, clips."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qle.errors import ConfigError, DecodeError
from qle.extract.sampling import (
    NO_SEEK,
    SEEK_COST_FRAMES,
    Sampling,
    decode_runs,
    num_decoded_frames,
    plan_rows,
    split_rows,
)

ONE_FPS = Sampling(mode="fps", fps=1.0)
FINE = Fraction(1, 90_000)


@st.composite
def videos(draw):
    """(display times, end, time base) of a video whose rate changes at will between stretches, stamps rounded to ticks."""
    time_base = draw(st.sampled_from([Fraction(1, 1000), Fraction(1, 12_800), FINE, Fraction(1, 1_000_000)]))
    stretches = draw(st.lists(st.tuples(st.floats(1, 60), st.integers(1, 80)), min_size=1, max_size=4))
    steps = np.concatenate([np.full(count, 1 / rate) for rate, count in stretches])
    start = draw(st.floats(0, 1e4))
    times = start + np.concatenate([[0.0], np.cumsum(steps)])
    stamps = np.rint(times * time_base.denominator) / time_base.denominator
    return stamps[:-1], float(stamps[-1]), time_base


@given(videos(), st.floats(0.05, 70))
def test_a_row_describes_the_frame_on_screen(video, fps):
    pts_s, end_s, time_base = video
    plan = plan_rows(pts_s, end_s, time_base, Sampling(mode="fps", fps=fps))
    times = pts_s[0] + np.arange(plan.num_rows) / fps
    half_tick = float(time_base) / 2
    following = np.append(pts_s, np.inf)[plan.frame_index + 1]
    assert plan.num_rows >= 1
    assert (plan.pts_s <= times + half_tick * 1.001).all()
    assert (times < following + 1e-9).all()
    assert (times[1:] < end_s).all()
    assert times[-1] + 1 / fps >= end_s - half_tick * 1.001
    np.testing.assert_array_equal(plan.pts_s, pts_s[plan.frame_index])
    assert (np.diff(plan.frame_index) >= 0).all()


@given(st.floats(5, 60), st.integers(30, 300), st.floats(0.2, 30), st.floats(2, 100))
def test_rows_in_a_hole_are_invalid_and_all_others_valid(rate, num_frames, fps, hole_s):
    before = np.arange(num_frames) / rate
    after = before[-1] + hole_s + np.arange(num_frames) / rate
    pts_s = np.concatenate([before, after])
    end_s = float(after[-1]) + 1 / rate
    plan = plan_rows(pts_s, end_s, FINE, Sampling(mode="fps", fps=fps))
    times = np.arange(plan.num_rows) / fps
    deep_inside = (times > before[-1] + 2 / rate) & (times < after[0] - 1e-4)
    outside = (times <= before[-1] + 1 / rate) | (times >= after[0])
    assert not plan.is_valid[deep_inside].any()
    assert plan.is_valid[outside].all()


@given(st.floats(10, 60), st.floats(0.5, 60), st.integers(4, 60))
def test_a_slow_stretch_is_no_hole(fast, slow, num_frames):
    steps = np.concatenate(
        [np.full(num_frames, 1 / fast), np.full(num_frames, 1 / slow), np.full(num_frames, 1 / fast)]
    )
    pts_s = np.concatenate([[0.0], np.cumsum(steps)])
    plan = plan_rows(pts_s[:-1], float(pts_s[-1]), FINE, Sampling(mode="fps", fps=7.0))
    assert plan.is_valid.all()


def test_average_rate_would_be_three_seconds_off():
    """20 s at 30 fps, then 20 s at 10: the average of 20 fps puts 10 s at frame 200, which is really shown at 6.67 s."""
    pts_s = np.concatenate([np.arange(600) / 30, 20 + np.arange(200) / 10])
    plan = plan_rows(pts_s, 40.0, FINE, ONE_FPS)
    np.testing.assert_allclose(plan.pts_s, np.arange(40), atol=1e-9)
    assert plan.frame_index[10] == 300
    assert plan.is_valid.all()


def test_millisecond_stamps_do_not_shift_rows_by_a_frame():
    pts_s = np.round(np.arange(300) / 30, 3)
    plan = plan_rows(pts_s, 10.0, Fraction(1, 1000), Sampling(mode="fps", fps=15.0))
    np.testing.assert_array_equal(plan.frame_index, np.arange(0, 300, 2))


def test_a_tick_as_long_as_a_frame_shows_nothing_early():
    pts_s = np.arange(300) / 30
    plan = plan_rows(pts_s, 10.0, Fraction(1, 30), Sampling(mode="fps", fps=8.0))
    assert plan.frame_index[1] == 3  # 0.125 s: frame 3 is shown from 0.1 to 0.133 s


@given(
    videos(),
    st.floats(-5, 5),
    st.floats(0.01, 10),
    st.sampled_from([ONE_FPS, Sampling(mode="native"), Sampling(mode="stride", stride=3)]),
)
def test_a_clip_stays_in_its_part(video, offset_s, length_s, sampling):
    pts_s, end_s, time_base = video
    from_s = float(pts_s[0]) + offset_s
    plan = plan_rows(pts_s, end_s, time_base, sampling, from_s=from_s, until_s=from_s + length_s)
    overlaps = from_s + length_s > pts_s[0] and from_s < end_s
    assert (plan.num_rows > 0) == overlaps
    shown_at_start = pts_s[max(0, np.searchsorted(pts_s, from_s, side="right") - 1)]
    slack = float(time_base)
    assert (plan.pts_s >= shown_at_start - slack).all()
    assert (plan.pts_s < from_s + length_s + slack).all()


@given(videos(), st.integers(1, 9))
def test_native_and_stride_take_frames_as_they_are(video, stride):
    pts_s, end_s, time_base = video
    native = plan_rows(pts_s, end_s, time_base, Sampling(mode="native"))
    np.testing.assert_array_equal(native.pts_s, pts_s)
    assert native.is_valid.all()
    every = plan_rows(pts_s, end_s, time_base, Sampling(mode="stride", stride=stride))
    np.testing.assert_array_equal(every.frame_index, np.arange(0, len(pts_s), stride))


def test_hour_ten_is_as_exact_as_second_one():
    pts_s = np.arange(10 * 3600 * 30) * 1001 / 30_000
    plan = plan_rows(pts_s, float(pts_s[-1]) + 1001 / 30_000, Fraction(1, 30_000), ONE_FPS)
    times = np.arange(plan.num_rows)
    assert plan.num_rows == 36_036
    assert (times - plan.pts_s).max() < 0.0334
    assert (times - plan.pts_s).min() >= -1e-4


@pytest.mark.parametrize(
    "values",
    [{"mode": "fps"}, {"mode": "fps", "fps": 0.0}, {"mode": "native", "fps": 1.0}, {"mode": "stride", "stride": 0}],
)
def test_settings_that_mean_nothing_are_refused(values):
    with pytest.raises(ConfigError):
        Sampling(**values)


@st.composite
def key_tables(draw):
    is_key = np.zeros(draw(st.integers(1, 400)), bool)
    is_key[:: draw(st.integers(1, 60))] = True
    is_key[: draw(st.integers(0, 3))] = False  # frames after a hidden key frame
    wanted = draw(st.lists(st.integers(0, len(is_key) - 1), min_size=1, max_size=60))
    return is_key, np.sort(np.array(wanted, np.int64))


@given(key_tables())
def test_runs_reach_every_frame_and_never_cost_more_than_straight_on(table):
    is_key, wanted = table
    runs = decode_runs(wanted, is_key)
    np.testing.assert_array_equal(runs.frames, np.unique(wanted))
    jumps = runs.seek_to != NO_SEEK
    assert is_key[runs.seek_to[jumps]].all()
    assert (runs.seek_to[jumps] <= runs.frames[jumps]).all()
    assert num_decoded_frames(runs) <= wanted[-1] + 1


def test_seeks_where_key_frames_are_dense_and_not_where_they_are_rare():
    wanted = np.arange(0, 2500, 25)
    dense, rare = np.zeros(2500, bool), np.zeros(2500, bool)
    dense[::25] = rare[::250] = True
    assert decode_runs(wanted, dense).num_seeks == 99
    assert decode_runs(wanted, rare).num_seeks == 9  # from frame 225 the key frame 250 is 24 frames ahead
    assert num_decoded_frames(decode_runs(wanted, dense)) == 1 + 99 * (1 + SEEK_COST_FRAMES)


@given(key_tables(), st.integers(1, 8))
def test_parts_cover_all_rows_once_and_start_where_decoding_can(table, num_parts):
    is_key, frame_index = table
    parts = split_rows(frame_index, is_key, num_parts, min_frames=10)
    assert [start for start, _ in parts[1:]] == [stop for _, stop in parts[:-1]]
    assert parts[0][0] == 0
    assert parts[-1][1] == len(frame_index)
    assert all(start < stop for start, stop in parts)
    assert len(parts) <= num_parts


def test_parts_of_a_long_video_are_even_and_waste_little():
    is_key = np.zeros(100_000, bool)
    is_key[::250] = True
    frame_index = np.arange(0, 100_000, 25)
    parts = split_rows(frame_index, is_key, 4)
    costs = [num_decoded_frames(decode_runs(frame_index[start:stop], is_key)) for start, stop in parts]
    assert len(parts) == 4
    assert sum(frame_index[start] % 250 for start, _ in parts) == 0
    assert max(stop - start for start, stop in parts) <= 1.05 * 1000
    assert max(costs) < 2 * min(costs)


def test_a_gap_of_a_day_costs_its_frames_and_not_its_seconds():
    """Behind two minutes of a hole there are no rows, since they could only repeat one frame; then the grid goes on."""
    frames = np.arange(100) / 25
    pts_s = np.concatenate([frames, 1e5 + frames])
    plan = plan_rows(pts_s, 1e5 + 4, FINE, ONE_FPS)
    assert plan.num_rows < 150
    assert plan.is_valid.sum() == 9  # the fifth is taken as the last frame goes, within half a frame
    assert plan.pts_s[-4:].tolist() == [100_000.0, 100_001.0, 100_002.0, 100_003.0]
    assert plan.frame_index[-4:].tolist() == [100, 125, 150, 175]


@pytest.mark.parametrize("pts_s", [[0.0, 1e5], [0.0, 1e5, 2e5, 3e5], [0.0, 0.04, 1e5]])
def test_one_picture_is_not_believed_to_stay_for_a_day(pts_s):
    """Also where no neighbours tell how long a picture usually stays."""
    plan = plan_rows(np.array(pts_s), pts_s[-1] + 0.04, FINE, Sampling(mode="fps", fps=10.0))
    assert plan.num_rows < 1300 * len(pts_s)
    assert set(plan.frame_index[plan.is_valid].tolist()) == set(range(len(pts_s)))


@pytest.mark.parametrize(("pts_s", "end_s", "message"), [
    ([0.0, 0.04, 1e9], 1e9 + 0.04, "frame 2 is stamped 1000000000.000 s, 1000000000 s after"),
    ([0.0, 0.04], 1e9, "the last frame, stamped 0.040 s, is said to stay for 1000000000 s"),
    (np.arange(1000) * 20_000.0, 2e7, "rows at 30 fps from 1000 frames"),
])  # fmt: skip
def test_stamps_that_mean_nothing_are_named_before_anything_is_allocated(pts_s, end_s, message):
    with pytest.raises(DecodeError, match=message) as caught:
        plan_rows(np.array(pts_s), end_s, FINE, Sampling(mode="fps", fps=30.0))
    assert caught.value.kind == "timestamps"


@given(videos(), st.floats(0.05, 30), st.floats(0, 3e5))
def test_rows_outside_of_long_holes_are_as_they_would_be_without_one(video, fps, hole_s):
    """Rows before and after lie on the same grid, however long the hole is."""
    pts_s, end_s, time_base = video
    late = pts_s + (end_s - pts_s[0]) + hole_s
    plan = plan_rows(np.concatenate([pts_s, late]), float(late[-1]) + 0.04, time_base, Sampling(mode="fps", fps=fps))
    before = plan_rows(pts_s, end_s, time_base, Sampling(mode="fps", fps=fps))
    np.testing.assert_array_equal(plan.frame_index[: before.num_rows - 1], before.frame_index[:-1])
    assert plan.num_rows <= (2 * (end_s - pts_s[0]) + min(hole_s, 200 * (1 + end_s - pts_s[0])) + 400) * fps + 4
