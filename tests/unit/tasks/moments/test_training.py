"""What train.select may be on which validation annotations."""

import numpy as np
import pytest

from qle.data.annotations import Annotation
from qle.errors import AnnotationError
from qle.tasks.moments.training import check_measurable
from qle.train.config import Select


def rated(num_raters: int, rating: float) -> Annotation:
    """A query that happens, with two rated clips and two that nobody rated."""
    saliency = np.full((4, num_raters), np.nan, np.float32)
    saliency[:2] = rating
    return Annotation(qid="1", video="film", query="a dog", windows=((0.0, 4.0),), duration_s=8.0, saliency=saliency)


@pytest.mark.parametrize(
    ("select", "annotation"),
    [
        (
            "HL-mAP",
            rated(20, 4.0),
        ),  # their numbers are those of TVSum: HL-mAP would be no number, and any step the best
        ("HIT@1", rated(20, 4.0)),
        ("top5-mAP", rated(3, 4.0)),
        ("HL-mAP", rated(3, 3.0)),  # good, and never very good: 0 for every answer
        ("HIT@1", rated(3, np.nan)),
        ("top5-mAP", rated(20, np.nan)),
    ],
)
def test_ratings_that_cannot_tell_good_from_bad_are_refused_before_the_first_step(
    select: Select, annotation: Annotation
) -> None:
    with pytest.raises(AnnotationError, match=rf"train\.select={select} needs"):
        check_measurable([annotation, annotation], select)


@pytest.mark.parametrize(
    ("select", "annotation"), [("HL-mAP", rated(3, 4.0)), ("HIT@1", rated(1, 4.0)), ("top5-mAP", rated(4, 1.0))]
)
def test_one_query_that_can_tell_is_enough(select: Select, annotation: Annotation) -> None:
    check_measurable([rated(3, np.nan), annotation], select)
