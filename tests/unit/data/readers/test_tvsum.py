"""TVSum: ratings of clips, and durations that count them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qle.data.readers.tvsum import read
from qle.data.readlog import ReadLog
from qle.errors import AnnotationError
from tests.dataset_samples import TVSUM

Write = Callable[..., Path]


@pytest.fixture
def file(tmp_path: Path) -> Write:
    def write(*rows: Any) -> Path:
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / "a.jsonl"

    return write


def test_ratings_of_every_person_for_every_clip(file: Write) -> None:
    log = ReadLog()
    (one,) = read(file(*TVSUM), log)
    assert one.saliency is not None
    assert np.array_equal(one.saliency, [[5, 3, 1], [2, 2, 2], [1, 4, 5]])
    assert (one.duration_s, one.clip_s, one.origin) == (6.0, 2.0, {"domain": "VT"})
    assert not one.is_labelled
    assert log.notes == ["1 durations count clips of 2 s; they became seconds"]


def test_later_files_have_seconds_and_sums(file: Write) -> None:
    row = TVSUM[0] | {"duration": 584.7, "label": [[27.0]] * 292}
    log = ReadLog()
    (one,) = read(file(row), log)
    assert one.saliency is not None
    assert (one.duration_s, one.saliency.shape) == (584.7, (292, 1))
    assert log.notes == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, "label: expected a list, got None"),
        ({"label": []}, r"label: expected as many ratings for every clip, got \[\]"),
        ({"label": [[1], [1, 2], [3]]}, r"label: expected as many ratings for every clip, got \[1, 2\]"),
        ({"label": [[], [], []]}, r"label: expected as many ratings for every clip, got \[0\]"),
        ({"label": [[1], ["x"], [2]]}, "label: expected a finite number, got 'x'"),
        ({"duration": 20}, "label: 3 clips of 2 s for a duration of 20"),
        ({"duration": None}, "duration: expected a finite number"),
        ({"qid": None}, "qid: missing"),
        ({"vid": "a/../.."}, "vid: expected a name below the folder"),
        ({"query": 7}, "query: expected words, got 7"),
        ({"domain": 7}, "domain: expected words, got 7"),
    ],
)
def test_wrong_rows(file: Write, change: dict[str, Any], message: str) -> None:
    with pytest.raises(AnnotationError, match=rf"a\.jsonl line 2, {message}"):
        read(file(*TVSUM, TVSUM[0] | {"qid": "other"} | change), ReadLog())


def test_the_same_video_twice_and_no_json(file: Write) -> None:
    with pytest.raises(AnnotationError, match="line 2, qid: '-es' stands in line 1 too"):
        read(file(*TVSUM, *TVSUM), ReadLog())
    path = file(*TVSUM)
    path.write_text(path.read_text() + '{"label": [[NaN]]}\n')
    with pytest.raises(AnnotationError, match="line 2, row: no JSON: NaN is no number"):
        read(path, ReadLog())
