"""Which rows are shown, and where the map lies in the picture."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qle.backbones.preprocess import Preprocess
from qle.explain.best_rows import best_rows
from qle.explain.evidence import region_of
from qle.explain.explained import ExplainedFrame, ExplainedPrediction
from qle.explain.maps import WHOLE
from qle.localize.pictures import write_heatmaps
from qle.types import Moment, Prediction, ScoreTrack


def _prediction(probability: list[float], *spans: tuple[float, float], invalid: tuple[int, ...] = ()) -> Prediction:
    rows = len(probability)
    valid = np.ones(rows, bool)
    valid[list(invalid)] = False
    track = ScoreTrack(
        times_s=np.arange(rows) + 0.5, edges_s=np.arange(rows + 1.0), valid=valid, logit=np.zeros(rows, np.float32)
    )
    return Prediction(
        video="a", query="q", duration_s=float(rows), presence=1.0, probability=np.array(probability, np.float32), track=track,
        moments=tuple(Moment(start_s=start, end_s=end, score=0.9) for start, end in spans),
    )  # fmt: skip


def test_every_moment_has_its_best_row_before_one_has_two() -> None:
    probability = [0.1] * 20
    probability[2:6] = [0.9, 0.99, 0.98, 0.97]
    probability[12:16] = [0.6, 0.7, 0.6, 0.6]
    found = _prediction(probability, (2, 6), (12, 16))
    assert best_rows(found, 2).tolist() == [3, 13]
    assert best_rows(found, 1).tolist() == [3]
    assert set(best_rows(found, 4).tolist()) >= {3, 13}
    assert len(best_rows(found, 4)) == 4


def test_moments_that_overlap_do_not_share_their_pictures() -> None:
    probability = [0.1] * 20
    probability[4:12] = [0.6, 0.7, 0.8, 0.9, 0.8, 0.7, 0.6, 0.5]
    rows = best_rows(_prediction(probability, (4, 12), (5, 12), (4, 11)), 3).tolist()
    assert len(rows) == 3
    assert 7 in rows
    assert all(4 <= row < 12 for row in rows)


@pytest.mark.parametrize("rows_per_s", [1, 4, 30])
def test_frames_are_apart_from_each_other(rows_per_s: int) -> None:
    """At thirty rows a second six frames of one moment were six times the same picture."""
    times = np.arange(60 * rows_per_s) / rows_per_s
    probability = np.where((times > 10) & (times < 14), 0.9, np.where((times > 13) & (times < 18), 0.8, 0.1))
    made = _prediction(probability.tolist(), (10, 14), (13, 18), (30, 30.5))
    assert made.track is not None
    track = replace(made.track, times_s=times, edges_s=np.append(times, 60.0))
    rows = best_rows(replace(made, track=track, duration_s=60.0), 8)
    assert np.diff(times[rows]).min() >= 1.5
    assert {10, 13, 30} <= {int(time_s) for time_s in times[rows]} or rows_per_s == 1
    assert len(rows) >= 4
    # Where nothing was found in an hour of such rows, what came closest is taken from different scenes too.
    hour_s = np.arange(3600 * rows_per_s) / rows_per_s
    hour = _prediction(np.exp(-np.abs(hour_s - 1800)).tolist())
    assert hour.track is not None
    hour = replace(
        hour, track=replace(hour.track, times_s=hour_s, edges_s=np.append(hour_s, 3600.0)), duration_s=3600.0
    )
    assert np.diff(hour_s[best_rows(hour, 8)]).min() >= 5


def test_rows_that_are_not_valid_are_not_shown() -> None:
    found = _prediction([0.1, 0.9, 0.8, 0.2], (1, 3), invalid=(1,))
    assert best_rows(found, 1).tolist() == [2]
    assert best_rows(_prediction([0.5] * 3, invalid=(0, 1, 2)), 3).tolist() == []


def test_absent_query_shows_what_came_closest() -> None:
    assert 7 in best_rows(_prediction([0.1] * 7 + [0.2] + [0.1] * 4), 3).tolist()
    assert best_rows(_prediction([0.3]), 6).tolist() == [0]


def test_queries_that_begin_alike_do_not_share_pictures(tmp_path: Path) -> None:
    """Names of folders were cut at 80 signs, and the pictures of one query replaced those of the other."""
    frame = ExplainedFrame(time_s=1.0, frame=None, relevance=np.ones((2, 2), np.float32), scale=1.0)
    begin = "the grasper enters from the left side of the picture and lifts the"
    explained = [
        ExplainedPrediction(prediction=replace(_prediction([0.9], (0, 1)), query=f"{begin} {thing}"), frames=(frame,))
        for thing in ("liver", "polyp")
    ]
    written = write_heatmaps(tmp_path, explained)
    assert len(set(written)) == 2
    assert all(path.is_file() and len(path.parent.name) < 200 for path in written)


@pytest.mark.parametrize("size", [(240, 320), (480, 270), (224, 224), (100, 900)])
@pytest.mark.parametrize(
    ("resize", "resize_to"), [("squash", None), ("shorter-crop", None), ("shorter-crop", 256), ("letterbox", None)]
)
def test_region_is_where_the_preprocessing_really_looked(
    size: tuple[int, int], resize: Any, resize_to: int | None
) -> None:
    """A picture whose value is its row (or column) number goes through; the region must say which numbers came out."""
    preprocess = Preprocess(height=224, width=224, resize=resize, resize_to=resize_to, interpolation="bilinear")
    height, width = size
    video: Any = SimpleNamespace(record=SimpleNamespace(source=SimpleNamespace(height=height, width=width)))
    region = region_of(video, preprocess.to_dict())
    if resize == "squash":
        assert region == WHOLE
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0] = (20 + 200 * (np.arange(height) + 0.5) / height)[:, None]
    ramp[..., 1] = 20 + 200 * (np.arange(width) + 0.5) / width
    seen = preprocess.geometry(ramp).astype(float)
    for channel, (low, high) in enumerate([(region.top, region.bottom), (region.left, region.right)]):
        line = seen[:, 112, 0] if channel == 0 else seen[112, :, 1]
        for place in (30, 112, 190):
            share = low + (high - low) * (place + 0.5) / 224
            if 0.02 < share < 0.98:
                assert abs((line[place] - 20) / 200 - share) < 0.02
