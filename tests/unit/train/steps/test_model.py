"""What the loop trains: words that came with the batch are not encoded again, losses see wide numbers of any output."""

from dataclasses import dataclass, replace

import pytest
import torch

from qle.heads.base import Losses
from qle.heads.moments import MomentBatch, MomentHead, MomentOutput
from qle.heads.rows import HeadOutput
from qle.text import TextRequest, build_text_encoder
from qle.text.bank import QueryBank
from qle.train.steps.model import TrainedModel, in_float32, output_device


def test_numbers_of_any_output_become_wide_and_the_rest_stays():
    half = torch.ones(2, 3, dtype=torch.bfloat16)
    output = MomentOutput(
        logits=half, spans=half, saliency=half,
        extras={"attention": half, "mask": torch.ones(3, dtype=torch.bool), "classes": torch.ones(3, dtype=torch.int64)},
    )  # fmt: skip
    wide = in_float32(output)
    assert isinstance(wide, MomentOutput)
    assert {wide.logits.dtype, wide.spans.dtype, wide.saliency.dtype, wide.extras["attention"].dtype} == {torch.float32}
    assert (wide.extras["mask"].dtype, wide.extras["classes"].dtype) == (torch.bool, torch.int64)
    assert wide.negative_saliency is None
    assert in_float32(HeadOutput(logit=half)).logit.dtype == torch.float32


def test_the_device_is_that_of_the_first_tensor_wherever_it_stands():
    assert output_device(HeadOutput(logit=torch.ones(1, device="meta"))).type == "meta"

    @dataclass(frozen=True)
    class Nested:
        nothing: None
        extras: dict[str, torch.Tensor]

    assert output_device(Nested(nothing=None, extras={"a": torch.ones(1, device="meta")})).type == "meta"
    with pytest.raises(ValueError, match="no output"):
        output_device(HeadOutput())


class _Listening(MomentHead):
    """Remembers the words that it was given."""

    name = "listening"

    def forward(self, batch: MomentBatch) -> MomentOutput:
        self.words = batch.words
        empty = torch.zeros(1, batch.num_items, 1, 2)
        return MomentOutput(logits=empty, spans=empty, saliency=batch.clips.sum(-1))

    def loss(self, output: MomentOutput, batch: MomentBatch) -> Losses:
        total = output.saliency.sum()
        return Losses(total=total, terms={"saliency": total})


def test_words_that_came_with_the_batch_are_taken_as_they_are():
    text = build_text_encoder(TextRequest(name="tiny", dim=16), "cpu")
    model = TrainedModel(_Listening(), text, QueryBank(text))
    batch = MomentBatch(
        clips=torch.ones(1, 2, 3), clip_mask=torch.ones(1, 2, dtype=torch.bool), queries=("a polyp",),
        query_index=torch.zeros(1, dtype=torch.int64), sources=torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip
    assert model(batch)["saliency"] == 6.0
    words = model.head.words
    assert words is not None  # encoded by the loop
    own = replace(words, states=words.states + 1)
    model(batch.with_words(own))
    assert model.head.words is own
