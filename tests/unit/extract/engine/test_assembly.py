"""Clips come out whole and once, however the ranges of a video interleave."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qle.extract.engine.assembly import Batch, ClipAssembler
from qle.extract.engine.clips import ClipPlan
from qle.types import ClipContext


def image(row):
    return np.full((2, 3, 3), row % 251, dtype=np.uint8)


@given(
    st.integers(1, 60),
    st.sampled_from([("single", 1), ("tile", 4), ("centre", 8)]),
    st.randoms(use_true_random=False),
)
def test_clips_are_the_same_in_any_order_of_frames(num_rows, context, random):
    plan = ClipPlan(num_rows, ClipContext.of(*context))
    is_done = np.array([random.random() < 0.3 for _ in range(num_rows)])
    assembler = ClipAssembler(plan, is_done, (2, 3))
    rows = assembler.rows_needed.tolist()
    random.shuffle(rows)
    clips = {}
    for row in rows:
        for clip, frames in assembler.add(row, image(row)):
            assert clip not in clips
            clips[clip] = frames
    assert sorted(clips) == plan.clips_for(is_done).tolist()
    for clip, frames in clips.items():
        np.testing.assert_array_equal(frames, np.stack([image(row) for row in plan.rows(clip)]))


def test_frames_in_order_hold_few_clips():
    assembler = ClipAssembler(ClipPlan(1000, ClipContext.of("centre", 8)), np.zeros(1000, dtype=bool), (2, 3))
    most = 0
    for row in range(1000):
        list(assembler.add(row, image(row)))
        most = max(most, len(assembler._open))
    assert most <= 2


def test_a_padded_batch_is_black_behind_its_clips():
    batch = Batch[str](frames=np.full((3, 1, 2, 3, 3), 9, dtype=np.uint8))
    batch.add("a", 0, image(5)[None])
    batch.pad()
    assert not batch.is_full
    assert batch.frames[0].min() == 5
    assert batch.frames[1:].max() == 0
