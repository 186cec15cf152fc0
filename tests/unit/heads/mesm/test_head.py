"""MESM: where its words come from, what training adds, and the faults of the published program that are gone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from qle.heads.mesm.head import MesmConfig, MesmHead
from qle.heads.moments import MomentBatch
from qle.text import TextRequest, build_text_encoder
from qle.text.stored import write_stored_words
from tests.small_models import clip_pair_folder, vector_file
from tests.small_moments import moment_batch, picked, small_moment_head, without_answers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

QUERIES = ["the green polyp", "a polyp, then the polyp", "jet", "jet"]


def head_of(variant: str = "mesm") -> MesmHead:
    head = small_moment_head(variant)
    assert isinstance(head, MesmHead)
    return head


def test_the_vocabulary_is_what_training_queries_say_most(tmp_path: Path) -> None:
    text = build_text_encoder(TextRequest(name=str(vector_file(tmp_path))))
    number = {piece.text: piece.number for piece in text.word_pieces("a the green polyp then jet") or ()}
    config = MesmHead.settled(MesmConfig(vocabulary_size=3), QUERIES, text)
    assert config.vocabulary[0] == number["polyp"]
    assert set(config.vocabulary[1:]) == {number["the"], number["jet"]}
    assert config.function_words == tuple(sorted((number["a"], number["the"])))
    assert config.marks == ()
    assert config.rebuilds_words
    assert MesmHead.notes(config) == ()
    assert MesmHead.settled(config, ["green"], text) == config  # settled once


def test_marks_of_begin_and_end_have_classes_and_are_never_hidden(tmp_path: Path) -> None:
    text = build_text_encoder(TextRequest(name=str(clip_pair_folder(tmp_path))))
    config = MesmHead.settled(MesmConfig(), QUERIES, text)
    pieces = text.word_pieces("jet") or ()
    assert config.marks == (pieces[0].number, pieces[-1].number)
    assert not set(config.marks) & set(config.vocabulary)


def test_without_numbers_of_words_nothing_is_rebuilt_and_the_user_is_told(tmp_path: Path) -> None:
    path = tmp_path / "words.safetensors"
    write_stored_words(path, dict.fromkeys(QUERIES, (np.eye(3, dtype=np.float32), None)))
    config = MesmHead.settled(MesmConfig(), QUERIES, build_text_encoder(TextRequest(name=str(path))))
    assert not config.rebuilds_words
    assert ["no word is hidden" in note for note in MesmHead.notes(config)] == [True]
    assert MesmHead.notes(replace(config, word_weight=0.0)) == ()


@pytest.mark.parametrize("variant", ["mesm", "mesm-options"])
def test_training_hides_words_and_reaches_all_that_rebuilds_them(variant: str) -> None:
    head, batch = head_of(variant).train(), moment_batch()
    losses = head.loss(head(batch), batch)
    assert "word" in losses.terms
    losses.total.backward()
    still = [name for name, parameter in head.named_parameters() if parameter.grad is None]
    assert still == []
    head.eval()
    assert "word" not in head.loss(head(batch), batch).terms
    head.train()
    unnumbered = replace(batch, words=replace(batch.words, ids=None))
    assert "word" not in head.loss(head(unnumbered), unnumbered).terms


def test_items_that_ask_the_same_have_other_words_hidden() -> None:
    head, batch = head_of(), moment_batch()
    assert batch.query_index[1] == batch.query_index[4]
    torch.manual_seed(0)
    drawn = [head.draw_hidden_words(batch) for _ in range(20)]
    assert any((each[1] != each[4]).any() for each in drawn if each is not None)


def test_hidden_words_are_told_from_the_clips_of_the_moment() -> None:
    """Of no others; an item without a moment counts for nothing."""
    head, batch = head_of(), moment_batch()
    words, targets = batch.item_words(), batch.targets
    assert targets is not None
    hidden = words.mask
    with torch.no_grad():
        logits = head.answer(batch, hidden).extras["word_logits"]
        elsewhere = torch.where(targets.relevant[..., None], batch.clips, batch.clips.flip(0))
        same = head.answer(replace(batch, clips=elsewhere), hidden).extras["word_logits"]
        torch.testing.assert_close(same[words.mask], logits[words.mask])
        inside = torch.where(targets.relevant[..., None], -batch.clips, batch.clips)
        other = head.answer(replace(batch, clips=inside), hidden).extras["word_logits"]
    has_moment = targets.relevant.any(dim=1)
    changed = (other - logits).abs().amax(dim=(1, 2)) > 1e-4
    assert changed.tolist() == has_moment.tolist()


def test_items_without_a_moment_take_no_part_in_what_is_rebuilt() -> None:
    head, batch = head_of(), moment_batch()
    batch = replace(batch, negative=None, negative_mask=None)
    whole = list(range(8))
    without = [item for item in whole if item != 3]  # the item that has no moment
    assert batch.targets is not None
    assert batch.targets.counts[3] == 0

    def word_term(items: list[int]) -> torch.Tensor:
        some: MomentBatch = picked(batch, items)
        output = head.answer(some, some.item_words().mask)
        return head.loss(output, some).terms["word"]

    with torch.no_grad():
        torch.testing.assert_close(word_term(whole), word_term(without))
        assert word_term([3]) == 0


def test_a_batch_of_one_recording_has_no_negatives_and_a_loss() -> None:
    """The published program stops there."""
    head = head_of().train()
    batch = picked(without_negatives(), [0, 1])
    losses = head.loss(head(batch), batch)
    assert "saliency_negative" not in losses.terms
    assert torch.isfinite(losses.total)


def without_negatives() -> MomentBatch:
    return replace(moment_batch(), negative=None, negative_mask=None)


def test_the_made_up_sentence_is_a_function_of_the_video_alone() -> None:
    """It is the same whatever is asked and whoever else asks; from all windows of a recording only where that is wished."""
    head, batch = head_of(), without_answers(moment_batch())
    with torch.no_grad():
        sentences = head(batch).extras["texts"][:, 0]
        asked_other = head(replace(batch, query_index=batch.query_index.flip(0))).extras["texts"][:, 0]
        alone = head(picked(batch, [2])).extras["texts"][:, 0]
        torch.testing.assert_close(asked_other, sentences)
        torch.testing.assert_close(alone[0], sentences[2])
        torch.testing.assert_close(sentences.norm(dim=-1), torch.ones(8))
        shared = head_of("mesm-options")(batch).extras["texts"][:, 0]
    torch.testing.assert_close(shared[0::2], shared[1::2])  # two items of each recording
    assert (sentences[0] - sentences[1]).abs().max() > 1e-3


def test_only_items_about_one_window_can_mean_the_same_moment() -> None:
    """Two windows of one recording may have moments at the same fractions: other footage."""
    head, batch = head_of(), without_negatives()
    assert batch.targets is not None
    spans = torch.tensor([[0.5, 0.2]]).expand(8, 2)
    batch = replace(batch, targets=replace(batch.targets, spans=spans, counts=(1,) * 8))
    one_window = replace(batch, videos=tuple(f"video {item // 2}" for item in range(8)))
    nothing_said = replace(batch, videos=(), first_clips=())
    with torch.no_grad():
        terms = [head.loss(head(each), each).terms["sentence"] for each in (batch, one_window, nothing_said)]
    assert terms[0] != terms[1]
    assert terms[1] == terms[2]
