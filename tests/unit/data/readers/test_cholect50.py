"""CholecT50 files, written in the exact format: 15 numbers for each triplet of each frame."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from qle.data.annotations import FrameBox
from qle.data.readers.cholect50 import read
from qle.data.readlog import ReadLog
from qle.errors import AnnotationError, InputError

NAMES = {"0": "grasper,dissect,cystic_plate", "17": "grasper,retract,gallbladder", "96": "hook,null_verb,null_target"}


def vector(triplet: int, box: tuple[float, ...] = (-1, -1, -1, -1)) -> list[float]:
    return [triplet, 0, 1, *box, 2, 0, -1, -1, -1, -1, -1, 1]


def write_labels(root: Path, frames: dict[str, Any], video: str = "VID08", **changes: Any) -> Path:
    (root / "labels").mkdir(parents=True, exist_ok=True)
    labels = {
        "video": 8, "fps": 1, "num_frames": 6, "info": {}, "licenses": {},
        "categories": {"triplet": NAMES, "instrument": {"0": "grasper"}}, "annotations": frames,
    }  # fmt: skip
    path = root / "labels" / f"{video}.json"
    path.write_text(json.dumps(labels | changes))
    return path


def test_frames_become_sentences_with_windows_and_boxes(tmp_path: Path) -> None:
    write_labels(
        tmp_path,
        {
            "0": [vector(17)],
            "1": [vector(17, (0.5, 0.25, 0.25, 0.5)), vector(17, (0.0, -0.1, 0.2, 0.3)), vector(96)],
            "2": [],
            "3": [vector(-1)],
            "4": [vector(17, (0.9, 0.9, 0.2, 0.2))],
            "5": [vector(17)],
        },
    )
    dissect, retract, idle = read(tmp_path, ReadLog())
    assert (dissect.query, dissect.is_absent) == ("the grasper dissects the cystic plate", True)
    assert (retract.query, retract.windows) == ("the grasper retracts the gallbladder", ((0, 2), (4, 6)))
    assert retract.boxes == (
        FrameBox(time_s=1, left=0, top=0, right=0.2, bottom=pytest.approx(0.2)),
        FrameBox(time_s=1, left=0.5, top=0.25, right=0.75, bottom=0.75),
        FrameBox(time_s=4, left=0.9, top=0.9, right=1, bottom=1),
    )
    assert (idle.query, idle.windows, idle.video, idle.duration_s) == (
        "the cautery hook does nothing",
        ((1, 2),),
        "VID08",
        6,
    )
    assert retract.concept_key == "triplet/grasper,retract,gallbladder"


@pytest.mark.parametrize(
    ("frames", "changes", "message"),
    [
        ({"1": [vector(55)]}, {}, r"annotations.1: the categories know no triplet 55"),
        ({"1": [[17, 0]]}, {}, r"annotations.1: expected vectors of 15 numbers"),
        ({"one": []}, {}, "annotations: expected the number of a frame or triplet, got 'one'"),
        ({"1": [vector(17, (2, 0, 1, 1))]}, {}, "annotations.1: a box outside the picture"),
        ({"1": [vector(17)[:3] + ["x"] * 4 + [0] * 8]}, {}, "annotations.1: expected a box of four numbers"),
        ({}, {"fps": "1"}, "expected an object with fps"),
        ({}, {"fps": 0}, "no frames in a second"),
        ({}, {"fps": math.nan}, "no frames in a second"),
        ({"1": None}, {}, "annotations.1: expected a list of vectors, got None"),
        ({"9" * 30: []}, {}, "annotations: expected the number of a frame"),
        ({"99999999999999": []}, {}, "num_frames: expected 1 to 10,000,000 frames"),
        ({}, {"num_frames": -5}, "num_frames: expected 1 to"),
        ({}, {"categories": {}}, "categories: no names of triplets"),
        ({}, {"categories": {"triplet": {"0": "grasper"}}}, "expected instrument,verb,target, got 'grasper'"),
    ],
)
def test_wrong_labels(tmp_path: Path, frames: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    path = write_labels(tmp_path, frames, **changes)
    with pytest.raises(AnnotationError, match=message) as caught:
        read(tmp_path, ReadLog())
    assert str(path) in str(caught.value)


def test_no_labels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no labels/VIDNN\.json"):
        read(tmp_path, ReadLog())
    write_labels(tmp_path, {}).write_text("{")
    with pytest.raises(AnnotationError, match=r"VID08\.json: no JSON"):
        read(tmp_path, ReadLog())
