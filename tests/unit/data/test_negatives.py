"""What happens in a stretch and what surely does not. Wrong answers here are wrong labels."""

import time
from itertools import count

import numpy as np
import pytest

from qle.data.annotations import Annotation
from qle.data.negatives import QueryPool, united_concepts
from qle.errors import ConfigError

_QID = count()


def asked(
    video: str, query: str, *windows: tuple[float, float], concept: str = "", is_labelled: bool = True
) -> Annotation:
    return Annotation(
        qid=str(next(_QID)), video=video, query=query, windows=windows, concept=concept, is_labelled=is_labelled
    )  # fmt: skip


@pytest.fixture
def pool() -> QueryPool:
    first = [
        asked("a", "a polyp", (10, 20), concept="polyp"),
        asked("a", "an adenoma", (40, 50), concept="polyp"),
        asked("a", "the hook cuts", (0, 5), (15, 18)),
        asked("a", "Blood.", concept="blood"),
        asked("a", "smoke", is_labelled=False),
    ]
    second = [
        asked("b", "a lesion", (1, 2), concept="polyp"),
        asked("b", "smoke", (3, 4)),
        asked("b", "water jet", (5, 6)),
        asked("b", "bleeding", concept="blood"),
    ]
    return QueryPool({"a": first, "b": second, "c": []})


def test_similar_negatives_share_a_word_that_is_not_common(rng: np.random.Generator) -> None:
    """A green ring happens: a blue ring and a green clip are asked, which only other videos are asked of."""
    shown = [asked("a", "a green ring", (0, 5)), asked("a", "the hook", (20, 30)), asked("a", "a green cap")]
    others = [asked("b", query, (1, 2)) for query in ("a blue ring", "a green clip", "a blue clip", "a water jet")]
    pool = QueryPool({"a": shown, "b": others})
    near = texts(pool.negatives("a", 1, 4, 9, rng, sources=("similar",)))
    assert near == {"a blue ring", "a green clip"}  # not the cap: the video is annotated with it
    assert not pool.negatives("a", 22, 25, 9, rng, sources=("similar",))  # "a" stands in most of them
    assert len(pool.negatives("a", 1, 4, 1, rng, sources=("similar",))) == 1


def texts(annotations: list[Annotation]) -> set[str]:
    return {annotation.query for annotation in annotations}


def test_positives_overlap_the_stretch(pool: QueryPool) -> None:
    assert texts(pool.positives("a", 16, 45)) == {"a polyp", "an adenoma", "the hook cuts"}
    assert texts(pool.positives("a", 20, 40)) == set()  # windows that only touch it do not happen in it
    assert len(pool.positives("a", 0, 60)) == 3  # each once, however many windows it has


def test_a_synonym_of_what_happens_is_no_negative(pool: QueryPool, rng: np.random.Generator) -> None:
    for _ in range(50):
        found = texts(pool.negatives("a", 41, 44, 9, rng))
        assert not found & {"a polyp", "an adenoma", "a lesion"}
        assert found == {"the hook cuts", "Blood.", "water jet"}


def test_the_same_words_are_the_same_concept_where_only_some_rows_name_it(rng: np.random.Generator) -> None:
    """They were asked as what happens and, from another video, as what does not, about the same rows."""
    united = united_concepts(
        [
            asked("a", "a polyp", (10, 20), concept="polyp"), asked("b", "A  polyp.", (1, 2)), asked("b", "a hook", (3, 4)),
            asked("a", "it", (0, 1), concept="polyp"), asked("a", "it", (0, 1), concept="hook"), asked("b", "it", (5, 6)),
        ]
    )  # fmt: skip
    assert [one.concept for one in united] == ["polyp", "polyp", "", "polyp", "hook", ""]  # "it" may be either
    pool = QueryPool({"a": united[:1], "b": united[1:3]})
    assert texts(pool.negatives("a", 10, 20, 9, rng)) == {"a hook"}


def test_sources(pool: QueryPool, rng: np.random.Generator) -> None:
    assert texts(pool.negatives("a", 30, 35, 9, rng, sources=("absent",))) == {"Blood."}
    assert texts(pool.negatives("a", 30, 35, 9, rng, sources=("corpus",))) == {"water jet"}
    seen = set()
    for _ in range(40):
        found = pool.negatives("a", 30, 35, 9, rng, sources=("window",))
        assert len(found) == 2
        seen |= texts(found)
    assert seen == {"a polyp", "an adenoma", "the hook cuts"}  # every wording of a concept is drawn some time


def test_what_nobody_labelled_is_neither_positive_nor_negative(pool: QueryPool, rng: np.random.Generator) -> None:
    assert "smoke" not in texts(pool.negatives("a", 30, 35, 9, rng)) | texts(pool.positives("a", 0, 60))
    assert "smoke" in texts(pool.negatives("b", 10, 20, 9, rng, sources=("window",)))


def test_a_video_without_annotations_gets_the_corpus(pool: QueryPool, rng: np.random.Generator) -> None:
    found = pool.negatives("c", 0, 9, 99, rng)
    assert len({one.concept_key for one in found}) == len(found) == 5
    assert pool.positives("c", 0, 9) == []
    assert pool.negatives("c", 0, 9, 0, rng) == []


def test_sources_take_turns(rng: np.random.Generator) -> None:
    many = {"b": [asked("b", f"thing {place}", (0, 1)) for place in range(500)]}
    pool = QueryPool({"a": [asked("a", "here", (0, 1))], **many})
    hard = sum(texts(pool.negatives("a", 5, 6, 1, rng)) == {"here"} for _ in range(300))
    assert 100 < hard < 200  # half of them, and not one in 501


def test_queries_of_other_videos_are_different_and_all_come_some_time(rng: np.random.Generator) -> None:
    many = {"b": [asked("b", f"thing {place}", (0, 1)) for place in range(200)]}
    pool = QueryPool({"a": [asked("a", f"thing {place}", (0, 1)) for place in range(20)], **many})
    seen = set()
    for _ in range(400):
        found = pool.negatives("a", 5, 6, 4, rng, sources=("corpus",))
        assert len(texts(found)) == 4
        seen |= texts(found)
    assert seen == {f"thing {place}" for place in range(20, 200)}
    assert len(pool.negatives("a", 5, 6, 500, rng, sources=("corpus",))) == 180


def test_an_unknown_source_is_refused(pool: QueryPool, rng: np.random.Generator) -> None:
    with pytest.raises(ConfigError, match="'elsewhere': choose among window, absent, corpus"):
        pool.negatives("a", 0, 1, 1, rng, sources=("elsewhere",))  # type: ignore[arg-type]


def test_an_epoch_of_questions_costs_little(rng: np.random.Generator) -> None:
    pool = QueryPool(
        {
            f"v{video}": [asked(f"v{video}", f"q{rng.integers(20_000)}", (at, at + 5)) for at in range(0, 100, 5)]
            for video in range(200)
        }
    )
    started_s = time.process_time()
    for at in range(300):
        stretch = (f"v{at % 200}", at % 90, at % 90 + 8)
        pool.positives(*stretch)
        pool.negatives(*stretch, 4, rng)
    assert time.process_time() - started_s < 1.0
