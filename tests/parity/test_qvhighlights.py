"""Every number of every case that the official program of QVHighlights was run on; an error where it stops."""

import json
from typing import Any

import pytest

from qle.errors import AnnotationError
from qle.eval.submissions.qvhighlights import differing, evaluate_submission
from qle.eval.submissions.rows import CLIP_S, SALIENCY, WINDOWS
from tests.golden_sets import ROUNDING, Evaluation, evaluations


def keys(value: Any) -> Any:
    """Names at every level, in order."""
    return [(name, keys(part)) for name, part in value.items()] if isinstance(value, dict) else None


@evaluations("case")
def test_the_official_numbers_or_an_error_where_it_stops(case: Evaluation) -> None:
    truth, said, expected = case.truth, case.said, case.expected
    if "error" in expected:
        with pytest.raises(AnnotationError) as caught:
            evaluate_submission(truth, said, match_number=case.match_number, published=True)
        assert len(str(caught.value).splitlines()) <= 3
        with pytest.raises(AnnotationError):
            evaluate_submission(truth, said, match_number=case.match_number)
        return
    result = evaluate_submission(truth, said, match_number=case.match_number, published=True)
    assert keys(result) == keys(expected)
    assert not {name: both for name, both in differing(expected, result).items() if abs(both[0] - both[1]) > ROUNDING}


@evaluations("case")
def test_the_default_agrees_but_for_what_is_wrong_there(case: Evaluation) -> None:
    """Moments agree where every query is answered once with windows that have a length, highlights where every clip has a score;
    what differs beyond that is refused, or a fault that is mended."""
    if "error" in case.expected:
        return
    truth, said = case.truth, case.said
    official = evaluate_submission(truth, said, match_number=case.match_number, published=True)
    try:
        default = evaluate_submission(truth, said, match_number=case.match_number)
    except AnnotationError:
        assert not (is_answered_once(truth, said) and has_lengths(truth, said) and has_like_keys(said))
        return
    found = differing(official, default)
    if is_answered_once(truth, said) and has_lengths(truth, said):
        assert all("HL-" in name for name in found), found
    if is_answered_once(truth, said) and has_all_scores(truth, said):
        assert not any("HL-" in name for name in found), found
    if not found:
        assert json.dumps(official) == json.dumps(default)


def is_answered_once(truth: list[dict[str, Any]], said: list[dict[str, Any]]) -> bool:
    asked = [row["qid"] for row in truth]
    return len(said) == len(asked) == len(set(asked)) and {row["qid"] for row in said} == set(asked)


def has_lengths(truth: list[dict[str, Any]], said: list[dict[str, Any]]) -> bool:
    windows = [window for row in truth for window in row["relevant_windows"]]
    windows += [window for row in said for window in row.get(WINDOWS, ())]
    return all(window[0] < window[1] for window in windows)


def has_like_keys(said: list[dict[str, Any]]) -> bool:
    return len({frozenset({WINDOWS, SALIENCY} & row.keys()) for row in said}) == 1


def has_all_scores(truth: list[dict[str, Any]], said: list[dict[str, Any]]) -> bool:
    lengths = {row["qid"]: int(row["duration"] / CLIP_S) for row in truth}
    return all(len(row.get(SALIENCY, ())) >= lengths[row["qid"]] for row in said)
