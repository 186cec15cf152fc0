"""The Charades-STA protocol gives the numbers that its official code was run for: overlaps, edge cases, constant spans."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from qle.data.annotations import Annotation
from qle.data.readers import charades_sta
from qle.data.readlog import ReadLog
from qle.eval.moments.report import Beside
from qle.eval.submissions.charades import LEVELS, charades_report, hull_overlap, span_metrics
from qle.eval.windows import share_at_least
from tests.golden_sets import golden_sets

SPANS = "*-spans.safetensors"
"""The annotations, where a collection has them."""


def check_hits(found: float, expected: dict[str, Any], level: float) -> None:
    """As many as there are in exact arithmetic, but for those that are exactly on the level."""
    exact = expected.get("hits_exact_rational_seconds", expected["hits"])
    assert abs(round(found) - exact[str(level)]) <= expected["within_1e-5_of_threshold"][str(level)]


@golden_sets("charades-eval")
def test_the_levels_are_those_of_the_protocol(golden_set: Path) -> None:
    expected = json.loads((golden_set / "expected.json").read_text())
    assert set(expected["random"]["hits"]) <= {str(level) for level in LEVELS}


@golden_sets("charades-eval")
def test_overlaps_with_their_edge_cases(golden_set: Path) -> None:
    """Reversed, touching, empty, behind the end: the last rows of the case."""
    expected = json.loads((golden_set / "expected.json").read_text())["random"]
    case = load_file(golden_set / expected["file"])
    spans, targets = case["in.pred"], case["in.gt"]
    np.testing.assert_allclose(hull_overlap(*spans.T, *targets.T), case["out.tiou"], atol=1e-6)
    found = span_metrics(spans.astype(np.float64), targets.astype(np.float64))
    assert found["mIoU"] == pytest.approx(expected["mIoU"], abs=1e-6)
    overlap = hull_overlap(*spans.T.astype(np.float64), *targets.T.astype(np.float64))
    for level in map(float, expected["hits"]):
        num_hits = share_at_least(overlap, level).sum()
        check_hits(num_hits, expected, level)
        assert found[f"R1@{level}"] == num_hits / len(spans)


@golden_sets("charades-eval")
def test_constant_spans_over_the_test_set(golden_set: Path) -> None:
    """As a file of predictions goes through the protocol: the floors that everybody has to beat."""
    files = sorted(golden_set.glob(SPANS))
    if not files:
        pytest.skip("the annotations are not part of these golden numbers")
    targets = load_file(files[0])["gt"].astype(np.float64)
    expected = json.loads((golden_set / "expected.json").read_text())
    annotations = [
        Annotation(qid=str(k), video=f"{k}", query="a query", windows=((start, end),), duration_s=1.0)
        for k, (start, end) in enumerate(targets.tolist())
    ]
    for floor in expected["constant_span_floors"]:
        rows = [{"qid": k, "pred_relevant_windows": [[*floor["span"], 1.0]]} for k in range(len(targets))]
        report = charades_report(annotations, rows, Beside(num_bootstrap=0), name="constant")
        assert report.metric("charades.miou").value == pytest.approx(floor["mIoU"], abs=1e-6)
        for level in map(float, floor["hits"]):
            num_hits = report.metric(f"charades.r1@{level}").value * floor["queries"]
            assert round(num_hits) == pytest.approx(num_hits, abs=1e-6)
            check_hits(num_hits, floor, level)
            if floor["span"] == [0.0, 1.0]:
                metric = report.metric(f"charades.r1@{level}")
                assert metric.floors["whole_video"] == metric.value


def test_the_annotation_file_as_it_is_published(shared_annotations: Path) -> None:
    """Windows that end behind the listed length are not cut, where no lengths are given."""
    annotations = charades_sta.read(shared_annotations / "charades_sta_test.txt", ReadLog())
    rows = [
        {"qid": int(one.qid), "pred_relevant_windows": [[*one.windows[0], 0.5], [0, 1, 0.9]]} for one in annotations
    ]
    report = charades_report(annotations, rows, Beside(num_bootstrap=0), name="perfect")
    assert all(metric.value == 1.0 for metric in report.metrics["charades"].values())
    assert report.floor_names == ()  # nobody knows how long the videos are
