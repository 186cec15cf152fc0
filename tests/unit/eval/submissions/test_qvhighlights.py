"""The QVHighlights protocol against its definition written out query by query, and one clear error for each wrong input."""

import json
import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qle.errors import AnnotationError, InputError
from qle.eval.moments import highlights
from qle.eval.moments.highlights import by_length, clip_average_precision, top_clips_precision
from qle.eval.submissions.qvhighlights import differing, evaluate_submission
from qle.eval.submissions.rows import read_rows

LEVELS = [round(0.5 + 0.05 * step, 2) for step in range(10)]

time = st.integers(0, 24).map(lambda half: half / 2)
length = st.integers(0, 24).map(lambda half: half / 2)
window = st.tuples(time, length).map(lambda pair: [pair[0], sum(pair)])
scored_window = st.tuples(window, st.integers(0, 3)).map(lambda pair: [*pair[0], pair[1] / 4])
rating = st.lists(st.integers(0, 4), min_size=3, max_size=3)


@st.composite
def query(draw: Callable, qid: int) -> tuple[dict, dict]:
    num_clips = draw(st.integers(1, 6))
    clips = draw(st.lists(st.integers(0, num_clips - 1), min_size=1, max_size=num_clips, unique=True))
    truth = {
        "qid": qid,
        "duration": 2 * num_clips + draw(st.sampled_from([0, 1, 1.5])),
        "relevant_windows": draw(st.lists(window, min_size=1, max_size=4)),
        "relevant_clip_ids": clips,
        "saliency_scores": draw(st.lists(rating, min_size=len(clips), max_size=len(clips))),
    }
    said = {
        "qid": qid,
        "pred_relevant_windows": draw(st.lists(scored_window, min_size=1, max_size=12)),
        "pred_saliency_scores": draw(st.lists(st.integers(-2, 2), min_size=1, max_size=num_clips + 2)),
    }
    return truth, said


@st.composite
def files(draw: Callable) -> tuple[list[dict], list[dict]]:
    """The last query has a target of every class."""
    pairs = [draw(query(qid)) for qid in range(draw(st.integers(0, 3)))]
    truth, said = draw(query(99))
    truth["relevant_windows"] = [[0, 8], [20, 44], [60, 148]]
    pairs.append((truth, said))
    return [truth for truth, _ in pairs], [said for _, said in pairs]


# The definition, one thing at a time


def overlap(one: list, other: list) -> float:
    both = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    either = (one[1] - one[0]) + (other[1] - other[0]) - both
    return both / either if either else math.inf  # as published: 0 / 0 is a hit


def average_precision(targets: list, windows: list, level: float) -> float:
    free = list(range(len(targets)))
    true = []
    for window in sorted(windows[:10], key=lambda window: -window[2]):
        able = [t for t in free if not overlap(window, targets[t]) < level]
        true.append(bool(able))
        if able:
            free.remove(max(able, key=lambda t: (overlap(window, targets[t]), t)))
    precision = [sum(true[: k + 1]) / (k + 1) for k in range(len(true))]
    return sum(max(precision[k:]) for k in range(len(true)) if true[k]) / len(targets)


def rank_one(targets: list, window: list) -> float:
    target = max(enumerate(targets), key=lambda pair: (overlap(window, pair[1]), -pair[0]))[1]
    hull = max(window[1], target[1]) - min(window[0], target[0])
    return max(0.0, min(window[1], target[1]) - max(window[0], target[0])) / hull if hull else 0.0


def clip_precision(labels: list[bool], scores: list[float]) -> float:
    if len(set(labels)) == 1:
        return float(labels[0])
    steps = []
    for threshold in sorted(set(scores)):  # the lowest first
        chosen = [label for label, score in zip(labels, scores, strict=True) if score >= threshold]
        steps.append((sum(chosen), sum(chosen) / len(chosen)))
    best = [max(precision for _, precision in steps[: k + 1]) for k in range(len(steps))]
    after = [true for true, _ in steps[1:]] + [0]
    return float(np.mean([best[k] for k in range(len(steps)) if steps[k][0] != after[k]]))


def by_definition(truth: list[dict], said: list[dict]) -> dict[str, Any]:
    answers = {row["qid"]: row for row in said}
    found: dict[str, Any] = {}
    for name, level in highlights.LEVELS.items():
        precision, hit = [], []
        for row in truth:
            num_clips = int(row["duration"] / 2)
            rated = np.zeros((num_clips, 3))
            rated[row["relevant_clip_ids"]] = row["saliency_scores"]
            listed = answers[row["qid"]]["pred_saliency_scores"]
            filled = (listed + [0] * num_clips)[:num_clips]
            precision += [clip_precision((rated[:, rater] >= level).tolist(), filled) for rater in range(3)]
            best = listed.index(max(listed))
            hit.append(best < num_clips and bool((rated[best] >= level).any()))
        found[f"HL-min-{name}"] = {"HL-mAP": 100 * np.mean(precision), "HL-Hit1": 100 * np.mean(hit)}
    for name, (low, high) in {"full": (-1, 1e9), "long": (30, 150), "middle": (10, 30), "short": (0, 10)}.items():
        left = [
            ([w for w in row["relevant_windows"] if low < w[1] - w[0] <= high], answers[row["qid"]]) for row in truth
        ]
        left = [(targets, row["pred_relevant_windows"]) for targets, row in left if targets]
        aps = {
            str(level): 100 * np.mean([average_precision(targets, windows, level) for targets, windows in left])
            for level in LEVELS
        }
        ones = [rank_one(targets, windows[0]) for targets, windows in left]
        found[name] = {
            "MR-mAP": aps | {"average": np.mean(list(aps.values()))},
            "MR-R1": {str(level): 100 * np.mean(np.array(ones) >= level) for level in LEVELS},
        }
    return found


@pytest.mark.slow
@settings(max_examples=150)
@given(files())
def test_it_is_its_definition(pair: tuple[list[dict], list[dict]]) -> None:
    truth, said = pair
    found = evaluate_submission(truth, said, published=True)
    expected = by_definition(truth, said)
    off = differing(expected, {name: found[name] for name in expected})
    assert not {name: both for name, both in off.items() if abs(both[0] - both[1]) > 0.0051}
    assert found["brief"]["MR-middle-mAP"] == found["middle"]["MR-mAP"]["average"]


@pytest.mark.slow
@given(files(), st.randoms())
def test_the_order_of_rows_is_nothing(pair: tuple[list[dict], list[dict]], random: Any) -> None:
    truth, said = pair
    shuffled = [random.sample(rows, len(rows)) for rows in (truth, said)]
    one, other = (evaluate_submission(*both, published=True) for both in (pair, shuffled))
    assert all(abs(a - b) < 0.011 for a, b in differing(one, other).values())


# Modes


TRUTH = {
    "qid": 1, "duration": 150, "relevant_windows": [[0, 8], [20, 44], [60, 148]],
    "relevant_clip_ids": [0, 1, 74], "saliency_scores": [[4, 4, 4], [2, 3, 0], [3, 3, 3]],
}  # fmt: skip
SAID = {"qid": 1, "pred_relevant_windows": [[0, 8, 0.9], [22, 44, 0.5]], "pred_saliency_scores": [-1.0] * 75}


def changed(row: dict, **changes: Any) -> dict:
    return {key: value for key, value in (deepcopy(row) | changes).items() if value is not None}


def test_missing_scores_stand_in_front_of_negative_ones_only_as_published() -> None:
    short = changed(SAID, pred_saliency_scores=[-1.0, -2.0] + [-3.0] * 72)  # the last clip, which is liked, has none
    published = evaluate_submission([TRUTH], [short], published=True)["brief"]
    honest = evaluate_submission([TRUTH], [short])["brief"]
    assert published["HL-min-VeryGood-mAP"] == 50.0  # behind the clip that has no score
    assert honest["HL-min-VeryGood-mAP"] == 100.0
    assert honest["HL-min-VeryGood-Hit1"] == published["HL-min-VeryGood-Hit1"] == 100.0


def test_queries_without_an_answer_are_misses_unless_published() -> None:
    truth = [TRUTH, changed(TRUTH, qid=2)]
    with pytest.raises(AnnotationError, match="1 queries of ground truth have no prediction"):
        evaluate_submission(truth, [SAID])
    published = evaluate_submission(truth, [SAID], match_number=False, published=True)["brief"]
    honest = evaluate_submission(truth, [SAID], match_number=False)["brief"]
    assert published == evaluate_submission([TRUTH], [SAID])["brief"]
    assert honest["MR-full-R1@0.5"] == published["MR-full-R1@0.5"] / 2
    assert honest["MR-full-mAP@0.5"] == pytest.approx(published["MR-full-mAP@0.5"] / 2, abs=0.01)
    assert honest["HL-min-Fair-Hit1"] == published["HL-min-Fair-Hit1"] / 2
    assert honest["HL-min-Fair-mAP"] == pytest.approx(published["HL-min-Fair-mAP"] / 2, abs=0.01)


def test_windows_without_length_hit_each_other_only_as_published() -> None:
    dot = changed(SAID, pred_relevant_windows=[[100, 100, 0.9]])
    truth = changed(TRUTH, relevant_windows=[*TRUTH["relevant_windows"], [50, 50]])
    assert evaluate_submission([truth], [dot], published=True)["brief"]["MR-full-mAP"] == 25.0
    assert evaluate_submission([TRUTH], [dot])["brief"]["MR-full-mAP"] == 0.0
    with pytest.raises(AnnotationError, match=r"row 1 \(qid 1\), relevant_windows: \[50, 50\] does not end after"):
        evaluate_submission([truth], [dot])


# Errors

WRONG_ROWS = {
    "no window": ({}, {"pred_relevant_windows": []}, "pred_relevant_windows: an empty list"),
    "no score": ({}, {"pred_relevant_windows": [[0, 8]]}, r"expected \[start, end, score\], got \[0, 8\]"),
    "text in a window": ({}, {"pred_relevant_windows": [[0, "8", 0.5]]}, "expected finite numbers, got '8'"),
    "a window that is none": ({}, {"pred_relevant_windows": [7]}, "got 7"),
    "windows that are none": ({}, {"pred_relevant_windows": {"a": 1}}, "expected a list"),
    "NaN in a window": ({}, {"pred_relevant_windows": [[0, 8, math.nan]]}, "expected finite numbers, got nan"),
    "reversed": ({}, {"pred_relevant_windows": [[8, 0, 0.5]]}, r"\[8, 0\] does not end after it starts"),
    "neither": ({}, {"pred_relevant_windows": None, "pred_saliency_scores": None}, "missing, and so is"),
    "no saliency": ({}, {"pred_saliency_scores": []}, "pred_saliency_scores: an empty list"),
    "truth in saliency": ({}, {"pred_saliency_scores": [True]}, "expected finite numbers, got True"),
    "a number without end": ({}, {"pred_saliency_scores": [10**400]}, "expected finite numbers, got 10000"),
    "qid a list": ({}, {"qid": [1]}, r"qid: expected a number or text, got \[1\]"),
    "qid as text": ({}, {"qid": "1"}, "qids are numbers in one file and text in the other"),
    "hidden": ({"relevant_windows": None}, {}, "relevant_windows: missing"),
    "no target": ({"relevant_windows": []}, {}, "relevant_windows: an empty list"),
    "a target of three": ({"relevant_windows": [[0]]}, {}, r"expected \[start, end\] in seconds"),
    "no clips": ({"relevant_clip_ids": None}, {}, "relevant_clip_ids: missing"),
    "a clip behind the end": ({"relevant_clip_ids": [0, 1, 75]}, {}, "75 is no clip of a video of 75 clips"),
    "a clip before the beginning": ({"relevant_clip_ids": [-1, 1, 2]}, {}, "-1 is no clip"),
    "half a clip": ({"relevant_clip_ids": [0, 0.5, 2]}, {}, "0.5 is no clip"),
    "two raters": ({"saliency_scores": [[1, 2]] * 3}, {}, "expected 3 ratings"),
    "ratings for fewer clips": ({"saliency_scores": [[1, 2, 3]]}, {}, "1 for 3 relevant_clip_ids"),
    "no length": ({"duration": None}, {}, "duration: expected seconds"),
    "a length without end": ({"duration": 10**400}, {}, "duration: expected seconds"),
    "a length of years": ({"duration": 1e12}, {}, "duration: expected seconds"),
    "less than a clip": ({"duration": 1.5}, {}, "duration: expected seconds"),
    "no long target": ({"relevant_windows": [[0, 8], [20, 44]]}, {}, "longer than 30 s and at most 150 s"),
}


@pytest.mark.parametrize("name", WRONG_ROWS)
def test_a_wrong_row_is_one_clear_error(name: str) -> None:
    truth, said, message = WRONG_ROWS[name]
    with pytest.raises(AnnotationError, match=message) as caught:
        evaluate_submission([changed(TRUTH, **truth)], [changed(SAID, **said)])
    assert 2 <= len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("side", [0, 1])
def test_a_repeated_query_is_an_error(side: int) -> None:
    rows = [[TRUTH], [SAID]]
    rows[side] = [*rows[side], deepcopy(rows[side][0])]
    with pytest.raises(AnnotationError, match=r"row 2 \(qid 1\), qid: stands in row 1 too"):
        evaluate_submission(*rows)
    assert evaluate_submission(*rows, published=True)["brief"]  # the official program takes such files


def test_what_lies_behind_the_tenth_window_costs_nothing() -> None:
    many = changed(SAID, pred_relevant_windows=SAID["pred_relevant_windows"] * 5 + [["no number"]] * 10**6)
    few = changed(SAID, pred_relevant_windows=SAID["pred_relevant_windows"] * 5)
    assert evaluate_submission([TRUTH], [many]) == evaluate_submission([TRUTH], [few])


def test_numbers_of_any_size_are_measured() -> None:
    wide = changed(SAID, pred_relevant_windows=[[0, 1e9, 1e300], [-1e9, 1e9, -1e300]])
    assert evaluate_submission([TRUTH], [wide])["brief"]["MR-full-mAP"] == 0.0


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    with pytest.raises(InputError, match=r"said\.jsonl"):
        read_rows(path)
    wrong = (
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("{}\n[1]\n", "line 2: expected one JSON object"),
        ("{", "line 1: no"),
    )
    for text, message in wrong:
        path.write_text(text)
        with pytest.raises(AnnotationError, match=message):
            read_rows(path)
    path.write_text("\ufeff" + json.dumps(SAID) + "\n\n")
    assert read_rows(path) == [SAID]


# Clips


def test_groups_of_long_videos_are_cut_into_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(highlights, "MOST_CELLS", 10)
    pieces = by_length([4, 5, 4, 4, 100])
    assert [piece.tolist() for piece in pieces] == [[0, 2], [3], [1], [4]]


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1], 5 / 6),
        ([0, 1, 0], [1, 1, 1], 1 / 3),
        ([0, 1, 1, 0, 1], [0.9, 0.8, 0.8, 0.8, 0.1], 0.6),
        ([0, 0, 0], [1, 2, 3], 0.0),
        ([1, 1], [1, 2], 1.0),
        ([1, 0, 0], [-np.inf, -np.inf, 1], 1 / 3),
    ],
)
def test_average_precision_of_clips(labels: list, scores: list, expected: float) -> None:
    found = clip_average_precision(np.array([scores], float), np.array(labels, bool)[None, :, None])
    assert found.item() == pytest.approx(expected)


def test_top_clips_as_in_tvsum() -> None:
    """Two raters: one likes the first two of the ranking, the other the third; medians are lower ones."""
    ratings = np.array([[5, 1], [5, 1], [1, 3], [1, 1], [1, 1], [1, 1]])
    score = np.array([6.0, 5, 4, 3, 2, 1])
    found = top_clips_precision(score, ratings)
    assert found.tolist() == pytest.approx([1.0, (0 + 1 / 3) / 2])
    assert top_clips_precision(score, np.ones((6, 2))).tolist() == [0.0, 0.0]
    assert top_clips_precision(score[:2], ratings[:2]).tolist() == [0.0, 0.0]
