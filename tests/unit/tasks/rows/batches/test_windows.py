"""Windows of an epoch: every row, constant length, whatever the draw."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qle.tasks.rows.batches.config import DataConfig
from qle.tasks.rows.batches.windows import EpochPlan, cover, num_windows


@given(st.integers(1, 400), st.integers(1, 64), st.integers(0, 1000), st.booleans())
def test_every_row_is_covered_and_no_window_leaves_the_video(
    rows: int, length: int, seed: int, has_jitter: bool
) -> None:
    count = num_windows(rows, length, has_jitter)
    starts = cover(rows, length, count, np.random.default_rng(seed) if has_jitter else None)
    assert len(starts) == count
    assert starts.min() >= 0
    assert starts.max() <= max(0, rows - length)
    covered = np.zeros(rows, dtype=bool)
    for start in starts:
        covered[start : start + length] = True
    assert covered.all()
    assert count <= -(-rows // length) + 1


def test_phases_differ_between_epochs_even_where_windows_fit_exactly() -> None:
    starts = [tuple(cover(64, 8, num_windows(64, 8, True), np.random.default_rng(seed))) for seed in range(20)]
    assert len(set(starts)) > 15
    inner = {start % 8 for each in starts for start in each}
    assert inner == set(range(8))


def test_lengths_do_not_depend_on_the_epoch_and_batches_are_full() -> None:
    plan = EpochPlan(
        [100, 3, 17], [(0, 40, 50)], DataConfig(window_rows=16, windows_per_batch=5, positive_share=0.3), 7
    )
    for epoch in range(10):
        batches = plan.batches(epoch)
        assert len(batches) == plan.num_batches
        assert {len(batch) for batch in batches} == {5}


def test_windows_around_events_hold_their_event() -> None:
    config = DataConfig(window_rows=16, windows_per_batch=1, positive_share=0.9)
    plan = EpochPlan([1000], [(0, 500, 501)], config, 0)
    firsts = np.array([int(batch.first[0]) for batch in plan.batches(0)])
    holds = (firsts <= 500) & (firsts + 16 > 500)
    assert holds.mean() > 0.88
    assert len(set(firsts[holds])) > 5


def test_fewer_windows_than_a_batch_are_repeated() -> None:
    (batch,) = EpochPlan([4], [], DataConfig(window_rows=16, windows_per_batch=8), 0).batches(0)
    assert batch.video.tolist() == [0] * 8
    assert len(set(batch.number.tolist())) == 8


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_random_numbers_of_windows_and_epochs_are_their_own(seed: int) -> None:
    plan = EpochPlan([4], [], DataConfig(), seed)
    draws = {float(plan.rng(epoch, stream).random()) for epoch in range(5) for stream in range(5)}
    assert len(draws) == 25
