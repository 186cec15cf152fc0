"""Candidates of cached videos: the length of a video, its neighbours and the memory change nothing; two hours are no limit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from qle.data.annotations import Annotation
from qle.data.streams.features import StreamSet, windows_of
from qle.errors import AnnotationError, CacheCorruptError, CheckpointError
from qle.heads.base import TokenShapes
from qle.heads.moment_detr import MomentDetrConfig, MomentDetrHead
from qle.heads.moments import MomentBatch, MomentHead
from qle.segments.ranked import Candidates, Ranking, rank
from qle.tasks.moments.scoring import MomentScorer, predict_moments, score_annotations
from qle.text import TextRequest, build_text_encoder
from qle.text.bank import QueryBank
from tests.planted_moments import CLIP_S, DIM, PlantedHead, planted_cache, planted_features, planted_streams

CPU = torch.device("cpu")
TWO_HOURS = 3600
LONG = [(70, 80, 0), (3500, 3600, 0), (1000, 1600, 1), (37, 38, 2), (0, 20, 2)]
"""Across the end of the first window; up to the end; eight windows long; one clip where the second begins; at the beginning."""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    videos = {
        "long": planted_features(TWO_HOURS, LONG),
        "short": planted_features(60, [(10, 20, 0), (40, 45, 0)]),
        "whole": planted_features(75, [(0, 75, 0)]),
        "tiny": planted_features(1, []),
        "middle": planted_features(200, [(30, 90, 0), (150, 160, 0)]),
    }
    return planted_cache(tmp_path_factory.mktemp("planted"), videos)


def _scorer(head: MomentHead, streams: StreamSet, **changes: object) -> MomentScorer:
    text = build_text_encoder(TextRequest(name="tiny", dim=8), "cpu")
    settings: dict = {"device": CPU} | changes
    return MomentScorer(head, QueryBank(text), streams, **settings)


def _random_head(streams: StreamSet) -> MomentDetrHead:
    torch.manual_seed(0)
    config = MomentDetrConfig(dim=16, num_heads=2, hidden=16, encoder_layers=1, decoder_layers=1, num_queries=3)
    head = MomentDetrHead(
        config, TokenShapes(streams={"clips": (streams.recipe.dim,)}, text_dim=8, sentence_dim=8)
    ).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return head


def _moments(candidates: Candidates, least: float = 0.5) -> list[tuple[float, float]]:
    found = rank(candidates, Ranking())
    return sorted((round(one.start_s, 3), round(one.end_s, 3)) for one in found if one.score > least)


def _same(one: Candidates, other: Candidates) -> bool:
    """Up to the rounding of float32: of a logit, and of a fraction of a window of 150 s."""
    scores = [(one.logit, other.logit), (one.track.logit, other.track.logit)]
    times = [(one.start_s, other.start_s), (one.end_s, other.end_s)]
    return all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=atol)
        for pairs, atol in ((scores, 1e-4), (times, 2e-3))
        for a, b in pairs
    )


def test_two_hours_hold_every_planted_moment_once(cache: Path) -> None:
    scorer = _scorer(PlantedHead(), planted_streams(cache))
    first, second, third, nothing = scorer.score("long", ["event 0", "event 1", "event 2", "event 3"])
    assert _moments(first) == [(140, 160), (7000, 7200)]
    assert _moments(second) == [(2000, 3200)]
    assert _moments(third, 0.4) == [(0, 40), (74, 76)]
    assert _moments(nothing) == []
    assert first.duration_s == 7200
    for one, events in ((first, LONG[:2]), (second, LONG[2:3])):
        inside = np.zeros(TWO_HOURS, bool)
        for start, stop, _ in events:
            inside[start:stop] = True
        assert np.array_equal(one.track.logit > 0, inside)
        assert np.array_equal(one.track.edges_s, np.arange(TWO_HOURS + 1) * CLIP_S)


@pytest.mark.slow
def test_every_length_of_a_moment_and_place_of_a_border(cache: Path, tmp_path: Path) -> None:
    """One event of 1 to 180 clips, beginning anywhere: never lost, never two."""
    rng = np.random.default_rng(3)
    events = [(int(start), int(start + rng.integers(1, 180)), 0) for start in rng.integers(0, 200, 24)]
    videos = {f"v{k}": planted_features(290, [(start, min(stop, 290), 0)]) for k, (start, stop, _) in enumerate(events)}
    streams = planted_streams(planted_cache(tmp_path, videos), window_clips=40)
    found = _scorer(PlantedHead(), streams).score_videos({f"v{k}": ["event 0"] for k in range(len(events))})
    for number, (start, stop, _) in enumerate(events):
        expected = [(start * CLIP_S, min(stop, 290) * CLIP_S)]
        best = _moments(found[f"v{number}", "event 0"], 0.45)
        assert best == expected, (start, stop)


def test_video_in_one_window_has_the_numbers_of_that_window(cache: Path) -> None:
    streams = planted_streams(cache)
    head = _random_head(streams)
    scorer = _scorer(head, streams)
    (found,) = scorer.score("short", ["a polyp"])
    features = streams.clips("short").features
    count = np.arange(60, dtype=np.float32)
    ends = np.stack([count / 60, (count + 1) / 60], axis=1)
    batch = MomentBatch(
        clips=torch.from_numpy(np.concatenate([features, ends], axis=1))[None],
        clip_mask=torch.ones(1, 60, dtype=torch.bool), queries=("a polyp",), query_index=torch.tensor([0]),
        sources=torch.tensor([0]), words=scorer.text.encode(("a polyp",)),
    )  # fmt: skip
    with torch.no_grad():
        scores = head.decode(head(batch))
    assert np.array_equal(found.logit, scores.logit[0].double().numpy())
    assert np.allclose(found.start_s, scores.spans[0, :, 0].numpy() * 120, atol=1e-4)
    assert np.allclose(found.end_s, scores.spans[0, :, 1].numpy() * 120, atol=1e-4)
    assert np.array_equal(found.track.logit, scores.saliency[0].numpy())
    assert found.windows_s is not None
    assert found.windows_s.tolist() == [[0, 120]]


def test_passes_and_neighbours_change_no_number(cache: Path) -> None:
    streams = planted_streams(cache)
    head = _random_head(streams)
    asked = {
        "long": ["a polyp", "smoke fills the view"], "short": ["smoke"], "tiny": ["a polyp", "fire"], "middle": ["x"],
    }  # fmt: skip
    scorer, narrow = _scorer(head, streams), _scorer(head, streams, memory_bytes=1)
    assert narrow.items_per_pass(75) == 1
    together = scorer.score_videos(asked)
    assert together.keys() == {(key, query) for key, queries in asked.items() for query in queries}
    for key, queries in asked.items():
        for place, alone in enumerate(scorer.score(key, queries)):
            assert _same(together[key, queries[place]], alone)
        if key != "long":
            for place, alone in enumerate(narrow.score(key, queries)):
                assert _same(together[key, queries[place]], alone)
    twice = scorer.score("middle", ["fire", "x", "fire"])
    assert twice[0] is twice[2]
    assert _same(twice[1], together["middle", "x"])


def test_saliency_of_overlapping_windows_has_no_steps(tmp_path: Path) -> None:
    """A head whose saliency differs by window: between two windows it goes over in small steps."""

    class Offset(PlantedHead):
        def forward(self, batch: MomentBatch):
            output = super().forward(batch)
            first = torch.tensor(batch.first_clips, dtype=torch.float32)
            return replace(output, saliency=torch.zeros_like(output.saliency) + first[:, None])

    streams = planted_streams(planted_cache(tmp_path, {"a": planted_features(300, [])}))
    (found,) = _scorer(Offset(), streams).score("a", ["event 0"])
    firsts = [first for first, _ in windows_of(300, streams.recipe)]
    assert found.track.logit[0] == 0
    assert found.track.logit[-1] == firsts[-1]
    assert np.all(np.diff(found.track.logit) >= -1e-4)
    assert np.abs(np.diff(found.track.logit)).max() < 3


def test_what_training_truncates_is_searched_to_its_end(tmp_path: Path) -> None:
    streams = planted_streams(
        planted_cache(tmp_path, {"a": planted_features(300, [(280, 290, 0)])}), long_videos="truncate"
    )
    (found,) = _scorer(PlantedHead(), streams).score("a", ["event 0"])
    best = rank(found, Ranking())[0]
    assert (best.start_s, best.end_s) == pytest.approx((560, 580))
    assert found.track.valid.all()


def test_averaged_as_published(cache: Path) -> None:
    streams = planted_streams(cache, long_videos="pool")
    scorer = _scorer(_random_head(streams), streams)
    (found,) = scorer.score("middle", ["a polyp"])
    assert len(found.logit) == 3
    assert found.windows_s is not None
    assert found.windows_s.tolist() == [[0, 400.0]]
    assert (found.duration_s, len(found.track.logit)) == (400.0, 200)
    assert found.track.valid.all()


def test_annotations_in_their_order(cache: Path) -> None:
    scorer = _scorer(PlantedHead(), planted_streams(cache))
    annotations = [
        Annotation(qid=str(k), video=video, query=query, windows=())
        for k, (video, query) in enumerate(
            [("short", "event 0"), ("long", "event 0"), ("gone", "event 0"), ("short", "event 0")]
        )
    ]
    with pytest.raises(AnnotationError, match="gone"):
        score_annotations(scorer, annotations)
    seen: list[tuple[int, int]] = []
    found = score_annotations(
        scorer, annotations, allow_missing=True, on_progress=lambda done, total, what: seen.append((done, total))
    )
    assert [(one.annotation.qid, one.video) for one in found] == [
        ("0", "short"), ("1", "long"), ("3", "short"),
    ]  # fmt: skip
    assert found[0].candidates is found[2].candidates
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_prediction_holds_everything(cache: Path) -> None:
    scorer = _scorer(PlantedHead(), planted_streams(cache))
    (candidates,) = scorer.score("short", ["event 0"])
    found = predict_moments("short", "event 0", candidates, Ranking(presence_scale=2.0), "7")
    assert [round(time_s, 3) for one in found.moments[:2] for time_s in (one.start_s, one.end_s)] == [20, 40, 80, 90]
    assert (found.best, found.qid, len(found.moments)) == (found.moments[0], "7", 4)
    assert found.presence > 0.99
    assert found.probability is not None
    assert ((found.probability > 0.5) == (np.isin(np.arange(60), [*range(10, 20), *range(40, 45)]))).all()


def test_damaged_weights_and_features_are_named(cache: Path) -> None:
    streams = planted_streams(cache)
    head = _random_head(streams)
    with torch.no_grad():
        next(head.parameters()).fill_(float("nan"))
    with pytest.raises(CheckpointError, match="not finite"):
        _scorer(head, streams).score("short", ["a polyp"])

    class Dark(StreamSet):
        def clips(self, key: str, first: int = 0, stop: int | None = None):
            clips = super().clips(key, first, stop)
            return replace(clips, valid=np.zeros_like(clips.valid), features=np.zeros_like(clips.features))

    with pytest.raises(CacheCorruptError, match=r"none of its 60 clips"):
        _scorer(_random_head(streams), Dark(streams.recipe, streams.spaces)).score("short", ["a polyp"])


@pytest.mark.slow
def test_clips_without_features_are_not_looked_at(tmp_path: Path) -> None:
    """A camera that was covered for half an hour: nothing is found there, and nothing beside it suffers."""
    features = planted_features(400, [(10, 20, 0), (390, 400, 0)])
    streams = planted_streams(planted_cache(tmp_path, {"a": features}))

    class Covered(StreamSet):
        def clips(self, key: str, first: int = 0, stop: int | None = None):
            clips = super().clips(key, first, stop)
            valid = np.ones(400, bool)
            valid[100:300] = valid[15] = False
            return replace(clips, valid=valid, features=np.where(valid[:, None], clips.features, 0))

    covered = Covered(streams.recipe, streams.spaces)
    (found,) = _scorer(PlantedHead(), covered).score("a", ["event 0"])
    assert found.windows_s is not None
    assert len(found.windows_s) < len(windows_of(400, streams.recipe))
    assert [round(one) for span in _moments(found) for one in span] == [20, 30, 32, 40, 780, 800]
    assert np.array_equal(found.track.valid, covered.clips("a").valid)
    (random,) = _scorer(_random_head(covered), covered).score("a", ["a polyp"])
    assert np.isfinite(random.track.logit).all()


def test_scoring_leaves_modes_as_they_were_and_takes_half_precision(cache: Path) -> None:
    streams = planted_streams(cache)
    head = _random_head(streams).train()
    scorer = _scorer(head, streams, precision="bfloat16")
    (found,) = scorer.score("middle", ["a polyp"])
    assert head.training
    assert found.logit.dtype == np.float64
    (exact,) = _scorer(head, streams).score("middle", ["a polyp"])
    assert not _same(found, exact)
    assert np.abs(found.start_s - exact.start_s).max() < 60
    assert streams.recipe.parts[0].dim == DIM
