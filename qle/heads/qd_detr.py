"""QD-DETR (Moon et al. 2023): clips listen to the query before anything else, and are also shown queries that do not happen.

    clips --listen to words--> clips + token --encoder--> memory --reference decoder--> spans, classes
                                                     `--> saliency: how clips agree with the token

In training the same clips also listen to the query of another item (`MomentBatch.negative`), and their saliency should then
be low. Audio is more columns of `clips`. Different by default, undone by `published`: every clip hears all real words of its
own query (published: the mask of another item in some heads), learned positions of words are those of the words that are heard
(published: of the true query, in the negative pass too), and the negative term is finite for every score.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from qle.errors import ConfigError
from qle.heads.base import Losses, TokenShapes
from qle.heads.moments import FEATURES, MomentBatch, MomentHead, MomentOutput
from qle.nn.detr.clip_positions import clip_positions
from qle.nn.detr.config import DetrConfig
from qle.nn.detr.inputs import MomentInputs
from qle.nn.detr.saliency_losses import order_terms, pair_term
from qle.nn.detr.set_losses import set_losses, weighted
from qle.nn.detr.text_to_video import TextToVideoLayer, published_mask
from qle.nn.detr.token_detr import TokenDetr


@dataclass(frozen=True, kw_only=True)
class QdDetrConfig(DetrConfig):
    """Settings of the family, and how often clips listen to the query."""

    text_to_video_layers: int = 2
    """Layers in which clips listen to words."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text_to_video_layers < 1:
            raise ConfigError(f"head.text_to_video_layers = {self.text_to_video_layers}: expected 1 or more")


class QdDetrHead(MomentHead):
    """QD-DETR: clips listen to the query before the encoder, and learn from queries that do not happen."""

    name: ClassVar[str] = "qd_detr"
    Config: ClassVar[type] = QdDetrConfig

    def __init__(self, config: QdDetrConfig, shapes: TokenShapes) -> None:
        super().__init__()
        self.config = config
        sizes, dropout = (config.dim, config.num_heads, config.hidden), config.dropout
        self.inputs = MomentInputs(shapes.streams[FEATURES][0], shapes.text_dim, config)
        self.listen = nn.ModuleList(
            TextToVideoLayer(*sizes, dropout=dropout) for _ in range(config.text_to_video_layers)
        )
        self.detr = TokenDetr(config)

    def forward(self, batch: MomentBatch) -> MomentOutput:
        clips, positions = self.inputs.enter_clips(batch.clips), clip_positions(batch.clip_mask, self.config.dim)
        words, word_positions, mask = self._words(batch)
        # With a negative query the items stand in the batch twice, first with their own.
        rounds = 1 if batch.negative is None else 2
        heard, all_positions = clips.repeat(rounds, 1, 1), positions.repeat(rounds, 1, 1)
        for layer in self.listen:
            heard = layer(heard, all_positions, words, word_positions, mask)
        logits, spans, saliency = self.detr(heard, positions, batch.clip_mask)
        return MomentOutput(
            logits=logits,
            spans=spans,
            saliency=saliency[0],
            negative_saliency=None if rounds == 1 else saliency[1],
        )

    def _words(self, batch: MomentBatch) -> tuple[Tensor, Tensor | None, Bool[Tensor, "rounds_items ..."]]:
        """Words, their positions and who hears them; of the negative queries, where there are any, behind the others."""
        assert batch.words is not None
        asked = [batch.query_index]
        if batch.negative is not None:
            asked.append(batch.query_index[batch.negative])
        index = torch.cat(asked)
        words, word_mask = self.inputs.enter_words(batch.words.states)[index], batch.words.mask[index]
        if not self.config.published:
            return words, self.inputs.positions_of_words(words), word_mask
        # parity: positions of the true query in both rounds, and the mask in its order of heads, for each round alone.
        positions = self.inputs.positions_of_words(words[: batch.num_items])
        masks = [
            published_mask(batch.clip_mask, of_round, self.config.num_heads) for of_round in word_mask.chunk(len(asked))
        ]
        return words, None if positions is None else positions.repeat(len(asked), 1, 1), torch.cat(masks)

    def loss(self, output: MomentOutput, batch: MomentBatch) -> Losses:
        targets, losses = batch.targets, self.config.losses
        assert targets is not None
        terms, _ = set_losses(output.logits, output.spans, targets, losses, aux_loss=self.config.aux_loss)
        terms["saliency_margin"] = pair_term(output.saliency, targets, losses)
        terms |= order_terms(
            output.saliency, output.negative_saliency, batch.clip_mask, batch.negative_mask, targets, losses,
            published=self.config.published,
        )  # fmt: skip
        parts = weighted(terms, losses.weights())
        return Losses(total=torch.stack(list(parts.values())).sum(), terms=parts)
