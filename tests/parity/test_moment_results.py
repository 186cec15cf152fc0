"""Post-processing of the published programs, number by number."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.ranked_published import PublishedResult, published_post_processing, published_suppression


def _results(case: dict[str, np.ndarray]) -> list[PublishedResult]:
    num_clips = case["in.src_vid_mask"].sum(axis=1).astype(int)
    return [
        published_post_processing(
            case["in.pred_logits"][k], case["in.pred_spans"][k], case["in.saliency_scores"][k, : num_clips[k]],
            float(case["in.duration"][k]),
        )
        for k in range(len(num_clips))
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["smooth", "edges"])
def test_rows_of_the_submission_file(golden: Path, name: str) -> None:
    case = load_file(golden / "moment-detr" / f"case-post-{name}.safetensors")
    for place, result in enumerate(_results(case)):
        assert np.array_equal(result.ranked, case["out.ranked"][place])
        assert np.array_equal(result.rows, case["out.post"][place])
        assert np.array_equal(result.saliency, case["out.saliency_half"][place, : len(result.saliency)])


@pytest.mark.parametrize("name", ["smooth", "edges"])
def test_suppression_over_the_hull(golden: Path, name: str) -> None:
    case = load_file(golden / "moment-detr" / f"case-post-{name}.safetensors")
    most_before, most_after = case["in.nms_limits"].tolist()
    thresholds = [key for key in case if key.startswith("out.nms_") and not key.endswith("_count")]
    assert thresholds
    for key in thresholds:
        kept = [
            published_suppression(
                result.rows, float(key.rpartition("_")[2]), most_before=most_before, most_after=most_after
            )
            for result in _results(case)
        ]
        assert [len(rows) for rows in kept] == case[f"{key}_count"].tolist()
        assert np.array_equal(np.concatenate(kept), case[key])


def test_single_row_is_returned_as_it_is() -> None:
    row = np.array([[4.0, 2.0, 0.5]])
    assert published_suppression(row, 0.0, most_before=0, most_after=0) is row
