"""T-MASS: what it says of random numbers, how it draws, and what it refuses."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from qle.config import build_config
from qle.errors import ConfigError
from qle.eval.retrieval import both_ways, metrics_of, published_leak_ranks, retrieval_metrics
from qle.heads import build_head
from qle.heads.base import TokenShapes
from qle.heads.retrieval import FRAMES
from qle.heads.tmass import head as tmass
from qle.heads.tmass.head import MAX_LOG_SCALE, TmassConfig, TmassHead
from qle.heads.tmass.sampled_text import draw_noise
from tests.small_retrieval import (
    OTHER,
    SAME,
    SMALL,
    random_frames,
    random_texts,
    retrieval_batch,
    small_retrieval_head,
)

pytestmark = pytest.mark.usefixtures("one_thread")
NUM_RANDOM, WIDTH = 250, 32


def fresh_head(**settings: object) -> TmassHead:
    """As training begins."""
    torch.manual_seed(0)
    shapes = TokenShapes(streams={FRAMES: (WIDTH,)}, text_dim=WIDTH, sentence_dim=WIDTH)
    return build_head("tmass", {"trials": 5, **settings}, shapes).eval().requires_grad_(False)


@pytest.mark.parametrize("settings", [{}, {"scoring": "deterministic"}, {"prior": "normal"}])
def test_random_embeddings_give_chance(settings: dict) -> None:
    """250 unrelated texts and videos: 0.4 % are found at the first place by chance, and the mean rank is half of them."""
    words, frames = random_texts(NUM_RANDOM, WIDTH), torch.randn(NUM_RANDOM, 12, WIDTH)
    similarity = fresh_head(**settings).similarity(words, frames).numpy()
    for found in retrieval_metrics(similarity, np.arange(NUM_RANDOM)).values():
        assert found["r@1"] < 0.02
        assert found["r@10"] < 0.1
        assert found["meanr"] == pytest.approx((NUM_RANDOM + 1) / 2, rel=0.1)


@pytest.mark.slow
def test_the_published_score_finds_random_embeddings_because_it_is_told() -> None:
    """parity: why `similarity` is another formula. Nothing can be known here, and yet many texts find their video."""
    words, frames = random_texts(NUM_RANDOM, WIDTH), torch.randn(NUM_RANDOM, 12, WIDTH)
    video = torch.arange(NUM_RANDOM)
    leaking = fresh_head().leaking_similarity(words, frames, video).numpy()
    found = metrics_of(published_leak_ranks(leaking, video.numpy())["text_to_video"])
    assert found["r@1"] > 0.1
    assert found["r@10"] > 0.3
    assert found["meanr"] < NUM_RANDOM / 5


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    head = small_retrieval_head("tmass").requires_grad_(False)
    words, frames = random_texts(9), random_frames(11)
    whole = head.similarity(words, frames)
    for numbers in (16, 16 * 12, 16 * 40):
        monkeypatch.setattr(tmass, "TILE_NUMBERS", numbers)
        tiles = tmass._tiles(9, 11, 5, 16)
        assert len(tiles) > 1
        torch.testing.assert_close(head.similarity(words, frames), whole, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("texts", "videos"), [(1, 100_000), (1000, 1000), (3, 5), (0, 4), (4, 0)])
def test_tiles_hold_every_pair_once_and_few_at_a_time(texts: int, videos: int) -> None:
    tiles = tmass._tiles(texts, videos, 12, 512)
    sizes = [
        (len(range(texts)[one]), len(range(videos)[other])) for one, other in tiles
    ]  # fmt: skip
    assert sum(one * other for one, other in sizes) == texts * videos
    assert all((one + 12) * other * 512 <= tmass.TILE_NUMBERS for one, other in sizes)
    assert all(before[1].start <= after[1].start for before, after in pairwise(tiles))


def test_noise_of_its_own_for_every_pair_is_drawn_from_a_generator() -> None:
    head = small_retrieval_head("tmass").requires_grad_(False)
    words, frames = random_texts(3), random_frames(4)

    def drawn(seed: int, trials: int = 6) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return head.sampled_similarity(words, frames, trials=trials, generator=generator)

    assert drawn(1).shape == (3, 4, 6)
    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    # With very many trials both ways of drawing come to the same best score.
    shared = head.sampled_similarity(words, frames, noise=draw_noise((1, 3000, 1, 16), "uniform01", 1.0)).amax(-1)
    torch.testing.assert_close(drawn(3, 3000).amax(-1), shared, atol=0.03, rtol=0)


def test_the_fixed_noise_is_a_sample_of_the_prior() -> None:
    uniform = build_head("tmass", SMALL | {"trials": 200}, SAME).noise
    assert ((uniform >= 0) & (uniform < 1)).all()
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.02)
    normal = build_head("tmass", SMALL | {"trials": 200, "prior": "normal", "prior_std": 0.1}, SAME).noise
    assert normal.mean().item() == pytest.approx(0, abs=0.01)
    assert normal.std().item() == pytest.approx(0.1, abs=0.01)
    torch.manual_seed(9)
    assert torch.equal(build_head("tmass", SMALL | {"trials": 200}, SAME).noise, uniform)


def test_the_scale_stays_below_a_hundred_and_can_come_back() -> None:
    head = small_retrieval_head("tmass").train()
    with torch.no_grad():
        head.log_scale.fill_(9.0)
    batch = retrieval_batch("tmass")
    head.loss(head(batch), batch).total.backward()
    assert head.log_scale.item() == pytest.approx(MAX_LOG_SCALE)
    assert head.log_scale.grad.abs() > 0


def test_a_shortlist_ranks_as_the_head_does_where_frames_agree() -> None:
    """Videos of which every frame is nearly the same: then a text has nothing to choose, and both are one score."""
    head = fresh_head(scoring="deterministic")
    still = torch.randn(60, 1, WIDTH).expand(-1, 12, -1) + 0.01 * torch.randn(60, 12, WIDTH)
    words = random_texts(5, WIDTH)
    coarse = head.coarse(words) @ head.coarse_frames(still.mean(1)).T
    torch.testing.assert_close(coarse, head.similarity(words, still), atol=0.02, rtol=0)


def test_widths_that_differ_are_projected() -> None:
    """Or refused, where the user wants none."""
    same, other = build_head("tmass", SMALL, SAME), build_head("tmass", SMALL, OTHER)
    assert (same.is_projected, same.noise.shape[1]) == (False, 16)
    assert (other.is_projected, other.noise.shape[1]) == (True, SMALL["dim"])
    with pytest.raises(ConfigError, match="frames are 16 wide and sentences 9"):
        build_head("tmass", SMALL | {"projection": "never"}, OTHER)
    with pytest.raises(ConfigError, match="no multiple of num_heads = 3"):
        build_head("tmass", SMALL | {"num_heads": 3}, SAME)
    with pytest.raises(ConfigError, match="reads frame vectors"):
        build_head("tmass", {}, TokenShapes(streams={"patch": (2, 2, 8)}, text_dim=8, sentence_dim=8))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_frames", 0), ("dim", 0), ("num_heads", 0), ("trials", 0), ("dropout", 1.0), ("prior_std", 0.0),
        ("support_weight", -1.0), ("scale", 101.0), ("scale", 0.0), ("support_weight", math.inf),
    ],
)  # fmt: skip
def test_settings_that_make_no_head_are_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"head tmass.{name} = .*: expected"):
        build_config(TmassConfig, {name: value}, where="head tmass")


def test_ranks_of_no_leak_need_no_caption_for_every_video() -> None:
    """Videos without a text take part in the gallery, where the published evaluation cannot have them."""
    similarity = fresh_head().similarity(random_texts(4, WIDTH), torch.randn(9, 12, WIDTH)).numpy()
    ranks = both_ways(similarity, np.array([0, 2, 2, 7]))
    assert ranks["text_to_video"].candidates.tolist() == [9] * 4
    assert ranks["video_to_text"].candidates.tolist() == [3] * 3
