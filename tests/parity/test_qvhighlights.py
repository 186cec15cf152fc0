"""Every number of every case that the official program of QVHighlights was run on; an error where it stops."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from qle.errors import AnnotationError
from qle.eval.submissions.qvhighlights import differing, evaluate_submission

OFTEN = "ground_truth", "predictions"


def cases(golden: Path) -> list[dict[str, Any]]:
    return json.loads((golden / "qvh-eval/cases.json").read_text())


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


def keys(value: Any) -> Any:
    """Names at every level, in order."""
    return [(name, keys(part)) for name, part in value.items()] if isinstance(value, dict) else None


def test_every_case(golden: Path) -> None:
    folder = golden / "qvh-eval"
    found = cases(golden)
    assert found
    for case in found:
        truth, said = (rows(folder / case[kind]) for kind in OFTEN)
        expected = json.loads((folder / case["metrics"]).read_text())
        if "error" in expected:
            with pytest.raises(AnnotationError) as caught:
                evaluate_submission(truth, said, match_number=case["match_number"], published=True)
            assert len(str(caught.value).splitlines()) <= 3, case["name"]
            with pytest.raises(AnnotationError):
                evaluate_submission(truth, said, match_number=case["match_number"])
            continue
        result = evaluate_submission(truth, said, match_number=case["match_number"], published=True)
        assert keys(result) == keys(expected), case["name"]
        off = {name: both for name, both in differing(expected, result).items() if abs(both[0] - both[1]) > 0.011}
        assert not off, case["name"]


def test_the_default_agrees_but_for_what_is_wrong_there(golden: Path) -> None:
    """Of the made cases with nothing odd in them every number; of real predictions all about moments, and about highlights
    what 13 missing clip scores change."""
    folder = golden / "qvh-eval"
    by_name = {case["name"]: case for case in cases(golden)}
    clean = [
        "adv-one-query", "adv-score-ties", "adv-window-count", "adv-many-targets", "adv-exact-thresholds",
        "adv-class-borders", "adv-saliency-ties", "adv-no-saliency", "adv-no-windows", "adv-text-ids",
    ]  # fmt: skip
    for name in clean:
        case = by_name.get(name)
        if case is None:  # another selection of cases
            continue
        truth, said = (rows(folder / case[kind]) for kind in OFTEN)
        official = evaluate_submission(truth, said, published=True)
        assert json.dumps(evaluate_submission(truth, said)) == json.dumps(official), name
    for case in by_name.values():
        if case["queries"] < 1000:
            continue
        truth, said = (rows(folder / case[kind]) for kind in OFTEN)
        found = differing(evaluate_submission(truth, said, published=True), evaluate_submission(truth, said))
        assert all("HL-" in name and abs(both[1] - both[0]) < 0.5 for name, both in found.items()), found
