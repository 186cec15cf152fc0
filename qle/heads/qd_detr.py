"""QD-DETR (Moon et al. 2023): clips listen to the query before anything else, and are also shown queries that do not happen.

    clips --listen to words--> clips + token --encoder--> memory --reference decoder--> spans, classes
                                                     `--> saliency: how clips agree with the token

In training the same clips also listen to the query of another item (`MomentBatch.negative`), and their saliency should then
be low. Audio is more columns of `clips`. Different by default, undone by `published`: every clip hears all real words of its
own query (published: the mask of another item in some heads), learned places of words are those of the words that are heard
(published: of the true query, in the negative pass too), and the negative term is finite for every score.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from qle.data.moments.batch import MomentBatch
from qle.errors import ConfigError
from qle.heads.base import Losses, TokenShapes
from qle.heads.moment_base import FEATURES, MomentHead, MomentOutput
from qle.nn.clip_positions import clip_positions
from qle.nn.detr_config import DetrConfig
from qle.nn.detr_encoder import Encoder, EncoderLayer
from qle.nn.moment_inputs import MomentInputs
from qle.nn.moment_losses import margin_loss, negative_loss, rank_loss
from qle.nn.moment_outputs import SpanPredictor, TokenSaliency
from qle.nn.reference_decoder import ReferenceDecoder
from qle.nn.set_losses import set_loss_counts, set_losses, weighted
from qle.nn.text_to_video import TextToVideoLayer, published_mask
from qle.nn.token_encoder import TokenEncoder


@dataclass(frozen=True, kw_only=True)
class QdDetrConfig(DetrConfig):
    """Of the family, and how often clips listen."""

    text_to_video_layers: int = 2
    """Layers in which clips listen to words."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text_to_video_layers < 1:
            raise ConfigError(f"head.text_to_video_layers = {self.text_to_video_layers}: expected 1 or more")


class QdDetrHead(MomentHead):
    """See the head of this file."""

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
        layers = [EncoderLayer(*sizes, dropout=dropout, activation="prelu") for _ in range(config.encoder_layers)]
        self.encoder = TokenEncoder(Encoder(layers, final_norm=False), config.dim)
        self.decoder = ReferenceDecoder(*sizes, config.decoder_layers, config.num_queries, dropout=dropout)
        self.predict = SpanPredictor(config.dim)
        self.saliency = TokenSaliency(config.dim)

    def forward(self, batch: MomentBatch) -> MomentOutput:
        clips, places = self.inputs.enter_clips(batch.clips), clip_positions(batch.clip_mask, self.config.dim)
        words, word_places, mask = self._words(batch)
        # With a negative query the items stand in the batch twice, first with their own.
        rounds = 1 if batch.negative is None else 2
        heard, all_places = clips.repeat(rounds, 1, 1), places.repeat(rounds, 1, 1)
        for layer in self.listen:
            heard = layer(heard, all_places, words, word_places, mask)
        memory, token = self.encoder(heard, all_places, batch.clip_mask.repeat(rounds, 1))
        saliency = self.saliency(memory, token).unflatten(0, (rounds, -1))
        states, references = self.decoder(memory[: batch.num_items], batch.clip_mask, places)
        logits, spans = self.predict(states, references)
        return MomentOutput(
            logits=logits,
            spans=spans,
            saliency=saliency[0],
            negative_saliency=None if rounds == 1 else saliency[1],
        )

    def _words(self, batch: MomentBatch) -> tuple[Tensor, Tensor | None, Bool[Tensor, "rounds_items ..."]]:
        """Words, their places and who hears them; of the negative queries, where there are any, behind the others."""
        assert batch.words is not None
        asked = [batch.query_index]
        if batch.negative is not None:
            asked.append(batch.query_index[batch.negative])
        index = torch.cat(asked)
        words, word_mask = self.inputs.enter_words(batch.words.states)[index], batch.words.mask[index]
        if not self.config.published:
            return words, self.inputs.place_words(words), word_mask
        # parity: places of the true query in both rounds, and the mask in its order of heads, for each round alone.
        places = self.inputs.place_words(words[: batch.num_items])
        masks = [
            published_mask(batch.clip_mask, of_round, self.config.num_heads) for of_round in word_mask.chunk(len(asked))
        ]
        return words, None if places is None else places.repeat(len(asked), 1, 1), torch.cat(masks)

    def loss(self, output: MomentOutput, batch: MomentBatch) -> Losses:
        targets, losses = batch.targets, self.config.losses
        assert targets is not None
        terms, _ = set_losses(output.logits, output.spans, targets, losses)
        terms["saliency_margin"] = margin_loss(
            output.saliency, targets.better, targets.worse, targets.pair_mask, margin=losses.margin
        )
        scores, labels, mask = [output.saliency], [targets.saliency], [batch.clip_mask]
        if output.negative_saliency is not None:
            wrong = batch.clip_mask if batch.negative_mask is None else batch.clip_mask & batch.negative_mask[:, None]
            terms["saliency_negative"] = negative_loss(output.negative_saliency, wrong, published=self.config.published)
            scores.append(output.negative_saliency)
            labels.append(torch.zeros_like(targets.saliency))
            mask.append(wrong)
        terms["saliency_rank"] = rank_loss(
            torch.cat(scores, dim=1),
            torch.cat(labels, dim=1),
            torch.cat(mask, dim=1),
            temperature=losses.rank_temperature,
            divisor=losses.rank_divisor,
        )
        parts = weighted(terms, losses.weights())
        return Losses(total=torch.stack(list(parts.values())).sum(), terms=parts)

    def loss_counts(self, batch: MomentBatch) -> Mapping[str, Tensor]:
        assert batch.targets is not None
        config = self.config
        pairs = set_loss_counts(batch.targets.counts, config.num_queries, config.decoder_layers, batch.clips.device)
        return {**super().loss_counts(batch), **pairs}
