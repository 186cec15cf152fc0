"""What is asked of a corpus: every distinct text once, right wherever it, or what means the same, is annotated."""

import numpy as np
import pytest

from qle.data.annotations import Annotation
from qle.errors import AnnotationError
from qle.eval.corpus import CorpusAnswers, CorpusList, chain_values, corpus_metrics
from qle.eval.moments.report import Beside
from qle.eval.retrieval import Ranks
from qle.search.evaluation import truth_of


def row(video: str, query: str, *windows: tuple[float, float], **more: object) -> Annotation:
    return Annotation(qid=f"{video}-{query}", video=video, query=query, windows=windows, **more)  # type: ignore[arg-type]


def test_a_text_is_asked_once_and_right_in_all_its_videos():
    by_key = {
        "a": [row("a", "hook", (1, 2)), row("a", "the hook", (5, 6), concept="hook"), row("a", "bag")],
        "b": [row("b", "hook", (3, 4)), row("b", "bag", (0, 9))],
        "c": [row("c", "a whole film", is_labelled=False)],
    }
    truth = {one.qid: one for one in truth_of(by_key, lambda key: 10.0)}
    assert list(truth) == ["hook", "the hook", "bag", "a whole film"]
    assert truth["hook"].windows == {"a": ((1, 2), (5, 6)), "b": ((3, 4),)}
    assert list(truth["bag"].windows) == ["b"]  # in a it is known to be absent
    assert truth["a whole film"].windows == {"c": ()}
    assert truth["bag"].durations_s == {"b": 10.0}
    with pytest.raises(AnnotationError, match="nothing to find"):
        truth_of({"a": [row("a", "bag")]}, lambda key: 10.0)


def test_ablations_have_the_floors_of_the_chain_and_videos_a_median_rank():
    truth = truth_of({"a": [row("a", "hook", (1, 2))], "b": [row("b", "bag", (3, 4))]}, lambda key: 10.0)
    said = [
        CorpusList(videos=["a"], start_s=np.array([1.0]), end_s=np.array([2.0]), score=np.ones(1)),
        CorpusList(videos=["a"], start_s=np.array([3.0]), end_s=np.array([4.0]), score=np.ones(1)),
    ]
    ranks = Ranks(
        better=np.array([0, 2]), level=np.array([0, 1]), candidates=np.array([4, 4]), video=np.zeros(2, np.int64)
    )
    values = chain_values(truth, said)
    answers = CorpusAnswers(videos=ranks, chain=said, more={"chain_moment_only": values})
    found = corpus_metrics(truth, answers, num_videos=4, beside=Beside(num_bootstrap=0)).metrics
    assert values["r1@0.5"].tolist() == [1.0, 0.0]
    assert found["chain_moment_only"] == found["chain"]
    assert found["videos"]["medr"].value == pytest.approx((1 + 3.5) / 2)
    assert found["videos"]["medr"].floors == {"chance": 2.5}
