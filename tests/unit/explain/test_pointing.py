"""Pointing measures and their baselines, on maps and masks whose answers are known."""

import numpy as np
import pytest

from qle.data.annotations import Annotation, FrameBox
from qle.data.masks import MaskTrack
from qle.data.rows import RowChoice
from qle.explain.maps import Region
from qle.explain.pointing import box_mask, point, refined_peak
from qle.explain.visible import visible


def mask(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    drawn = np.zeros((70, 70), bool)
    drawn[top:bottom, left:right] = True
    return drawn


def test_map_on_the_thing_reaches_everything() -> None:
    relevance = np.full((7, 7), -1.0, np.float32)
    relevance[1, 5] = 3.0
    found = point(relevance, mask(4, 26, 44, 66))
    assert found.hit == found.cell == 1
    assert found.energy == pytest.approx(1)
    assert found.rank > 0.8
    assert found.pixel_auroc > 0.9
    assert found.hit_centre == found.cell_centre == 0
    assert found.hit_random == pytest.approx(22 * 22 / 4900)


def test_flat_map_gets_what_a_guess_gets() -> None:
    target = mask(0, 35, 0, 70)
    found = point(np.ones((7, 7), np.float32), target)
    assert found.energy == pytest.approx(0.5)
    assert found.rank == pytest.approx(0.5)
    assert found.pixel_auroc == pytest.approx(0.5)


def test_map_without_anything_positive_has_no_energy() -> None:
    assert point(np.full((4, 4), -1.0), mask(0, 70, 0, 70)).energy == 0


@pytest.mark.slow
def test_random_maps_hit_as_often_as_the_baseline_says() -> None:
    rng = np.random.default_rng(0)
    target = mask(10, 40, 20, 60)
    found = [point(rng.normal(size=(7, 7)), target) for _ in range(600)]
    assert np.mean([one.hit for one in found]) == pytest.approx(found[0].hit_random, abs=0.06)
    assert np.mean([one.cell for one in found]) == pytest.approx(found[0].cell_random, abs=0.06)
    assert np.mean([one.rank for one in found]) == pytest.approx(found[0].hit_random, abs=0.03)


def test_centre_baseline_is_the_middle_of_the_picture() -> None:
    off_centre = np.zeros((7, 7))
    off_centre[0, 0] = 1
    found = point(off_centre, mask(30, 40, 30, 40))
    assert (found.hit, found.hit_centre, found.cell, found.cell_centre) == (0, 1, 0, 1)


def test_region_moves_the_cells() -> None:
    relevance = np.zeros((2, 2))
    relevance[0, 0] = 1
    cut = Region(left=0.5, right=1.0)  # only the right half was seen
    target = mask(10, 25, 40, 50)
    assert point(relevance, target, cut).hit == 1
    assert point(relevance, target).hit == 0


def test_small_thing_between_middles_is_touched_but_not_hit() -> None:
    relevance = np.zeros((7, 7))
    relevance[0, 0] = 1
    found = point(relevance, mask(0, 3, 0, 3))
    assert (found.hit, found.cell) == (0, 1)


def test_mask_must_show_something() -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        point(np.zeros((2, 2)), np.zeros((4, 4), bool))


def test_box_is_fractions_of_the_picture_and_never_vanishes() -> None:
    drawn = box_mask(FrameBox(time_s=0, left=0.25, top=0.5, right=0.5, bottom=1.0))
    assert drawn.mean() == pytest.approx(0.125, abs=0.01)
    assert drawn[-1, drawn.shape[1] // 3]
    assert box_mask(FrameBox(time_s=0, left=0.3, top=0.3, right=0.3, bottom=0.3)).sum() == 1


def choice(times_s: np.ndarray) -> RowChoice:
    edges = np.concatenate([[0], (times_s[1:] + times_s[:-1]) / 2, [times_s[-1] + 0.5]])
    valid = np.ones(len(times_s), bool)
    valid[3] = False
    return RowChoice(
        index=np.arange(len(times_s)), times_s=times_s, edges_s=edges, valid=valid, duration_s=float(edges[-1])
    )


def test_rows_count_where_the_query_happens_and_the_nearest_mask_shows_it() -> None:
    times_s = np.arange(10) * 0.5
    masks = np.zeros((5, 8, 8), bool)
    masks[1:4, 2:4, 2:4] = True
    track = MaskTrack(times_s=np.arange(5) * 1.0, masks=masks)
    asked = Annotation(qid="1", video="a", query="a polyp", windows=((0.0, 2.6),), masks="m.npz:a")
    found = visible("a.mp4", asked, choice(times_s), track)
    # 0.0 and 0.5 are nearest to an empty mask, 1.5 is not valid, 3.0 is outside of the window.
    assert found.rows.tolist() == [2, 4, 5]
    assert all(one.any() for one in found.masks)
    thinned = visible("a.mp4", asked, choice(times_s), track, most=2)
    assert (thinned.rows.tolist(), len(thinned.masks)) == ([2, 5], 2)


def test_boxes_serve_where_there_are_no_masks() -> None:
    box = FrameBox(time_s=1.0, left=0, top=0, right=0.5, bottom=0.5)
    asked = Annotation(qid="1", video="a", query="a polyp", windows=((0.0, 9.0),), boxes=(box,))
    assert visible("a.mp4", asked, choice(np.arange(10) * 0.5), None).rows.tolist() == [2]
    unmarked = Annotation(qid="2", video="a", query="a polyp", windows=((0.0, 9.0),))
    assert len(visible("a.mp4", unmarked, choice(np.arange(10) * 0.5), None).rows) == 0


def test_all_boxes_of_one_time_are_the_thing() -> None:
    """The two graspers of a picture: a map that is high on the second of them was called wrong."""
    left = FrameBox(time_s=1.0, left=0, top=0, right=0.25, bottom=0.25)
    right = FrameBox(time_s=1.0, left=0.75, top=0.75, right=1, bottom=1)
    asked = Annotation(qid="1", video="a", query="a grasper", windows=((0.0, 9.0),), boxes=(left, right))
    (found,) = visible("a.mp4", asked, choice(np.arange(10) * 0.5), None).masks
    relevance = np.zeros((4, 4))
    relevance[3, 3] = 1
    assert point(relevance, found).hit == 1
    assert found.mean() == pytest.approx(0.125, abs=0.01)


def test_nearest_time_is_the_nearest() -> None:
    times_s = np.array([0.0, 1.0, 4.0])
    asked = Annotation(
        qid="1", video="a", query="a", windows=((0.0, 9.0),),
        boxes=tuple(FrameBox(time_s=time, left=0, top=0, right=1, bottom=1) for time in times_s),
    )  # fmt: skip
    found = visible("a.mp4", asked, choice(np.array([0.4, 0.6, 2.4, 2.6, 2.7, 5.0])), None)
    # Half of the usual distance of 2 s is the reach; the row at 2.6 s is not valid.
    assert found.rows.tolist() == [0, 1, 5]


def test_peak_on_the_black_around_the_picture_is_no_hit() -> None:
    """Held inside the picture, it would point at whatever touches the border."""
    relevance = np.zeros((4, 4))
    relevance[0, 1] = 1
    letterbox = Region(top=-0.5, bottom=1.5)
    found = point(relevance, mask(0, 10, 0, 50), letterbox)
    assert (found.hit, found.cell) == (0, 0)


def test_the_original_game_forgives_pixels_of_the_film() -> None:
    """A mask of 56 pixels stands for a film of 224 or of 1,120: 15 pixels of the one are 4 cells of the mask, of the other less
    than one."""
    target = np.zeros((56, 56), bool)
    target[26:30, 26:30] = True
    relevance = np.zeros((56, 56))
    relevance[28, 32] = 1.0  # three cells of the mask beside the thing
    small, large = point(relevance, target, frame=(224, 224)), point(relevance, target, frame=(1120, 1120))
    assert (small.hit, small.near, large.near) == (0, 1, 0)
    assert small.near_random > large.near_random >= small.hit_random


def test_a_peak_between_two_cells_lies_between_their_middles() -> None:
    """A thing on the border of two cells lights both alike: the middle of either lies beside it."""
    relevance = np.full((4, 4), -1.0)
    relevance[1, 1], relevance[1, 2] = 2.0, 1.9
    y, x = refined_peak(relevance)
    assert (y, x) == (pytest.approx(1.5 / 4), pytest.approx((1.5 * 2.0 + 2.5 * 1.9) / 3.9 / 4))
    target = np.zeros((64, 64), bool)
    target[20:28, 29:35] = True
    found = point(relevance, target)
    assert (found.hit, found.refined) == (0.0, 1.0)
    assert refined_peak(-np.ones((2, 2))) == (0.25, 0.25)  # nothing speaks for the query: the highest cell as it is
    corner = np.zeros((3, 3))
    corner[2, 2] = 1.0
    assert refined_peak(corner) == (2.5 / 3, 2.5 / 3)
