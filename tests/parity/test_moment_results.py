"""Post-processing of the published programs, number by number: sorted, or in the order of the queries (--no_sort_results)."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tests.golden_sets import golden_cases
from tests.ranked_published import PublishedResult, published_post_processing, published_suppression


def _results(case: dict[str, np.ndarray]) -> list[PublishedResult]:
    num_clips = case["in.src_vid_mask"].sum(axis=1).astype(int)
    return [
        published_post_processing(
            case["in.pred_logits"][k], case["in.pred_spans"][k], case["in.saliency_scores"][k, : num_clips[k]],
            float(case["in.duration"][k]), is_sorted=bool(case["in.sort"]),
        )
        for k in range(len(num_clips))
    ]  # fmt: skip


@golden_cases("moment-detr", has=["out.post"])
def test_rows_of_the_submission_file(golden_case: Path) -> None:
    case = load_file(golden_case)
    for place, result in enumerate(_results(case)):
        assert np.array_equal(result.ranked, case["out.ranked"][place])
        assert np.array_equal(result.rows, case["out.post"][place])
        assert np.array_equal(result.saliency, case["out.saliency_half"][place, : len(result.saliency)])


@golden_cases("moment-detr", has=["out.nms_"])
def test_suppression_over_the_hull(golden_case: Path) -> None:
    """Of the first rows of the file: of unsorted results not the best ones."""
    case = load_file(golden_case)
    most_before, most_after = case["in.nms_limits"].tolist()
    thresholds = [key for key in case if key.startswith("out.nms_") and not key.endswith("_count")]
    for key in thresholds:
        kept = [
            published_suppression(
                result.rows, float(key.rpartition("_")[2]), most_before=most_before, most_after=most_after
            )
            for result in _results(case)
        ]
        assert [len(rows) for rows in kept] == case[f"{key}_count"].tolist()
        assert np.array_equal(np.concatenate(kept), case[key])


def test_unsorted_results_keep_the_order_of_the_queries() -> None:
    """Worst first here; the suppression then looks at the first rows of the file, and orders only those by score."""
    logits = np.array([[0.0, 2.0], [1.0, 0.0], [3.0, 0.0]], np.float32)
    spans = np.array([[0.1, 0.04], [0.5, 0.2], [0.9, 0.04]], np.float32)
    rows = {
        is_sorted: published_post_processing(logits, spans, np.zeros(5, np.float32), 100.0, is_sorted=is_sorted).rows
        for is_sorted in (True, False)
    }
    assert rows[False].tolist() == rows[True][::-1].tolist() == [[8, 12, 0.1192], [40, 60, 0.7311], [88, 92, 0.9526]]
    kept = published_suppression(rows[False], 0.5, most_before=2, most_after=2)
    assert kept.tolist() == [[40, 60, 0.7311], [8, 12, 0.1192]]


def test_single_row_is_returned_as_it_is() -> None:
    row = np.array([[4.0, 2.0, 0.5]])
    assert published_suppression(row, 0.0, most_before=0, most_after=0) is row
