"""The number that chooses the weights is a number, or training says why it is none."""

import numpy as np
import pytest

from qle.data.annotations import Annotation
from qle.errors import AnnotationError
from qle.eval.rows.scored import ScoredQuery
from qle.tasks.rows.validation import frame_auroc
from qle.types import ScoreTrack


def scored(valid: list[bool]) -> list[ScoredQuery]:
    """Four rows of a second; the query happens in the first two."""
    track = ScoreTrack(
        times_s=np.arange(4.0), edges_s=np.arange(5.0), valid=np.array(valid), logit=np.array([3, 2, 1, 0], np.float32)
    )
    annotation = Annotation(qid="1", video="v", query="a polyp", windows=((0.0, 2.0),))
    return [ScoredQuery(annotation=annotation, video="v", track=track)]


def test_rows_are_ranked_over_all_queries():
    assert frame_auroc(scored([True] * 4)) == 1.0


def test_nothing_to_rank_is_one_clear_error():
    """The only rows where something happens hold NaN: the score was NaN, which no later one was better than."""
    with pytest.raises(AnnotationError, match="nothing can be ranked"):
        frame_auroc(scored([False, False, True, True]))
