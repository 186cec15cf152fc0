"""Every row is kept by exactly one clip, with context where the video has any."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qle.extract.engine.clips import ClipPlan
from qle.types import ClipContext

contexts = st.one_of(
    st.just(ClipContext.of("single", 8)),
    st.integers(1, 17).map(lambda length: ClipContext.of("tile", length)),
    st.tuples(st.integers(1, 17), st.integers(1, 17)).map(
        lambda pair: ClipContext(mode="centre", length=max(pair), step=min(pair))
    ),
)


@given(st.integers(1, 200), contexts)
def test_each_row_is_kept_once_by_a_clip_that_reads_it(num_rows, context):
    plan = ClipPlan(num_rows, context)
    kept = [row for clip in range(plan.num_clips) for row in plan.kept(clip)]
    assert kept == list(range(num_rows))
    for clip in range(plan.num_clips):
        assert set(plan.kept(clip)) <= set(plan.rows(clip).tolist())
        assert set(plan.keeper(np.array(plan.kept(clip), dtype=np.int64)).tolist()) <= {clip}


@given(st.integers(1, 200), contexts)
def test_readers_are_exactly_the_clips_that_read_the_row(num_rows, context):
    plan = ClipPlan(num_rows, context)
    rows = [set(plan.rows(clip).tolist()) for clip in range(plan.num_clips)]
    for row in range(num_rows):
        assert list(plan.readers(row)) == [clip for clip in range(plan.num_clips) if row in rows[clip]]


@given(st.integers(1, 120), contexts, st.randoms(use_true_random=False))
def test_a_resumed_video_reads_all_that_its_missing_rows_need_and_nothing_twice(num_rows, context, random):
    plan = ClipPlan(num_rows, context)
    is_done = np.array([random.random() < 0.5 for _ in range(num_rows)])
    clips = plan.clips_for(is_done)
    rescued = {row for clip in clips for row in plan.kept(clip)}
    assert set(np.flatnonzero(~is_done)) <= rescued
    assert plan.rows_for(clips).tolist() == sorted({int(row) for clip in clips for row in plan.rows(clip)})


def test_the_centre_rule_in_numbers():
    plan = ClipPlan(13, ClipContext.of("centre", 8))
    assert plan.num_clips == 3
    assert [plan.start(clip) for clip in range(3)] == [0, 4, 5]
    assert [list(plan.kept(clip)) for clip in range(3)] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9], [10, 11, 12]]


def test_a_video_shorter_than_a_clip_repeats_its_last_row():
    plan = ClipPlan(3, ClipContext.of("centre", 8))
    assert plan.num_clips == 1
    assert plan.rows(0).tolist() == [0, 1, 2, 2, 2, 2, 2, 2]
    assert list(plan.kept(0)) == [0, 1, 2]
