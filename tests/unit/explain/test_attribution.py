"""Temporal attribution on the real head, and masking of tokens on a head whose truth is known."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from qle.explain import attribution
from qle.explain.attribution import attribute
from qle.explain.maps import spearman
from qle.explain.perturbation import perturb
from qle.heads.base import Losses
from qle.heads.rows import HeadOutput, RowHead, RowReading, RowScores
from qle.text.base import Words
from tests.small_heads import SHAPES, random_words, small_head

NUM_ROWS = 30
TIMES_S = torch.arange(NUM_ROWS).double() / 2
USABLE = torch.ones(NUM_ROWS, dtype=torch.bool)


pytestmark = pytest.mark.usefixtures("one_thread")


def reading(head: RowHead, seed: int = 0) -> RowReading:
    tokens = torch.randn(NUM_ROWS, *SHAPES.streams["patch"], generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return head.read_rows({"patch": tokens}, random_words(1))


@pytest.mark.parametrize("variant", ["default", "ssm", "scores", "evidence", "no-mixer", "published"])
def test_contributions_add_up_to_the_difference_of_logits(variant: str) -> None:
    head = small_head(variant)
    found = attribute(head, reading(head), TIMES_S, USABLE, slice(8, 14), span_s=(4.0, 7.0))
    # The mixer over bare scores normalises one number and turns sharply; the residual says so.
    moved = max(1.0, float(np.abs(found.contribution).sum()))
    assert abs(found.residual) < (0.3 if variant == "scores" else 0.05) * moved
    assert found.contribution.sum() + found.residual == pytest.approx(found.logit - found.baseline, abs=1e-4)


def test_without_a_mixer_each_row_answers_for_itself() -> None:
    head = small_head("no-mixer")
    read = reading(head)
    found = attribute(head, read, TIMES_S, USABLE, slice(5, 6), span_s=(2.5, 3.0))
    expected = np.zeros(NUM_ROWS)
    expected[5] = float(read.raw_logit[0, 5] - read.raw_logit.mean())
    assert np.allclose(found.contribution, expected, atol=1e-5)


def test_order_agrees_with_replacing_rows_one_by_one() -> None:
    """The dearer way: put the mean row in the place of each row alone and see what the score loses."""
    head = small_head()
    read = reading(head)
    found = attribute(head, read, TIMES_S, USABLE, slice(10, 13), span_s=(5.0, 6.5))
    with torch.no_grad():
        lost = []
        for row in range(NUM_ROWS):
            features, raw_logit = read.features.clone(), read.raw_logit.clone()
            features[:, row], raw_logit[:, row] = read.features.mean(1), read.raw_logit.mean(1)
            scores = head.refine(RowReading(features=features, raw_logit=raw_logit), TIMES_S, USABLE)
            lost.append(found.logit - float(scores.logit[0, 10:13].mean()))
    near = slice(4, 19)  # beyond the reach of the mixer both are zero
    assert spearman(found.contribution[near], np.array(lost)[near]) > 0.5
    assert np.abs(found.contribution[:4]).max() < 1e-6


def test_rows_without_tokens_neither_count_nor_change_anything() -> None:
    head = small_head()
    usable = USABLE.clone()
    usable[[3, 11]] = False
    read = reading(head)
    found = attribute(head, read, TIMES_S, usable, slice(10, 13), span_s=(5.0, 6.5))
    assert found.contribution[[3, 11]].tolist() == [0, 0]
    with pytest.raises(ValueError, match="none of the rows"):
        attribute(head, read, TIMES_S, usable, slice(11, 12), span_s=(5.5, 6.0))


def test_long_videos_are_told_apart_around_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "MAX_ROWS", 10)
    head = small_head()
    read = reading(head)
    found = attribute(head, read, TIMES_S, USABLE, slice(27, 30), span_s=(13.5, 15.0))
    assert (found.first_row, len(found.contribution)) == (20, 10)
    with torch.no_grad():
        whole = head.refine(read, TIMES_S, USABLE).logit[0, 27:30].mean()
    assert found.logit == pytest.approx(float(whole), abs=1e-5)  # what is explained is the score that is reported


class LinearHead(RowHead):
    """Map = first number of each token: what it uses, and by how much, is known."""

    name: ClassVar[str] = "linear"
    streams = ("patch",)

    def forward(self, batch: object) -> HeadOutput:
        raise NotImplementedError

    def loss(self, output: HeadOutput, batch: object) -> Losses:
        raise NotImplementedError

    def read_rows(self, streams: Mapping[str, Tensor], words: Words, *, with_maps: bool = False) -> RowReading:
        relevance = streams["patch"][None, ..., 0].expand(len(words.mask), -1, -1, -1)
        return RowReading(features=relevance.flatten(2), raw_logit=relevance.mean((-1, -2)), relevance_map=relevance)

    def refine(self, reading: RowReading, times_s: Tensor, row_mask: Tensor) -> RowScores:
        return RowScores(logit=reading.raw_logit)


def test_masking_in_the_order_of_a_true_map_beats_random_and_inverse() -> None:
    head, fill = LinearHead(), torch.zeros(8)
    tokens = {"patch": torch.randn(1, 4, 4, 8, generator=torch.Generator().manual_seed(0))}
    relevance = tokens["patch"][0, ..., 0].numpy()
    found = perturb(head, tokens, random_words(1), relevance, fill=fill, rng=np.random.default_rng(0))
    assert found.deletion < found.random < found.insertion
    assert found.full == pytest.approx(float(relevance.mean()), abs=1e-6)
    assert found.empty == 0
    # The areas of a linear head in closed form: the k-th cell of the order stays for the share (k + 1/2) / n of the way.
    decreasing = np.sort(relevance.ravel())[::-1]
    stays = (np.arange(16) + 0.5) / 16
    assert found.deletion == pytest.approx(float((decreasing * stays).mean()), abs=1e-6)
    assert found.insertion == pytest.approx(float((decreasing[::-1] * stays).mean()), abs=1e-6)
    lying = perturb(head, tokens, random_words(1), -relevance, fill=fill, rng=np.random.default_rng(0))
    assert lying.gap == pytest.approx(-found.gap, abs=1e-6)


def test_cut_out_of_a_long_video_explains_the_same() -> None:
    """The mixer reaches 2 x 3 rows, so 20 rows around the moment hold everything that it heard."""
    head = small_head()
    read = reading(head)
    scores = head.refine(read, TIMES_S, USABLE).logit
    cut = slice(5, 25)
    near = RowReading(features=read.features[:, cut], raw_logit=read.raw_logit[:, cut])
    found = attribute(head, near, TIMES_S[cut], USABLE[cut], slice(9, 12), span_s=(7.0, 8.5))
    assert found.logit == pytest.approx(float(scores[0, 14:17].mean().detach()), abs=1e-5)


def test_steps_in_one_pass_give_what_steps_one_by_one_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were taken one by one, and a page of 120 answers about short videos spent its time on small passes."""
    head = small_head()
    read = reading(head)
    together = attribute(head, read, TIMES_S, USABLE, slice(10, 13), span_s=(5.0, 6.5))
    for rows in (1, 7 * NUM_ROWS):
        monkeypatch.setattr(attribution, "PASS_ROWS", rows)
        apart = attribute(head, read, TIMES_S, USABLE, slice(10, 13), span_s=(5.0, 6.5))
        assert np.allclose(apart.contribution, together.contribution, atol=1e-5)
        assert (apart.logit, apart.baseline) == pytest.approx((together.logit, together.baseline), abs=1e-5)
