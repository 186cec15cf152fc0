"""Moment-DETR (Lei et al. 2021): one encoder over clips and words, learned queries that each answer with a span.

    clips + words -> encoder -> memory -> decoder -> spans, classes
                                       -> saliency of the clips

Options of the published code: positions of words, pre-norm, and an alignment of queries with words (contrastive). It knows no
negative queries. Different by default: the alignment counts real words only (published: padding too, so that the term
depends on the longest query of the batch).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.errors import ConfigError
from qle.heads.base import Losses, TokenShapes
from qle.heads.moments import FEATURES, MomentBatch, MomentHead, MomentOutput
from qle.nn.detr.clip_positions import clip_positions
from qle.nn.detr.config import DetrConfig, check_weights
from qle.nn.detr.decoder import DecoderLayer, PlainDecoder
from qle.nn.detr.encoder import Encoder, EncoderLayer
from qle.nn.detr.inputs import MomentInputs
from qle.nn.detr.matcher import Matches
from qle.nn.detr.moment_losses import alignment_loss
from qle.nn.detr.outputs import SpanPredictor
from qle.nn.detr.saliency_losses import pair_term
from qle.nn.detr.set_losses import set_losses, weighted


@dataclass(frozen=True, kw_only=True)
class MomentDetrConfig(DetrConfig):
    """Settings of the family, and those that only its first head has."""

    pre_norm: bool = False
    """Norms stand before attention and feed-forward parts instead of after them."""
    aligns: bool = False
    """Matched queries are pulled to the words of the query in a space of their own."""
    align_dim: int = 64
    align_temperature: float = 0.07
    align_weight: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights(self, "align_weight")
        if self.align_dim < 1 or not self.align_temperature > 0:
            raise ConfigError("head: expected align_dim of 1 or more and align_temperature above 0")


class MomentDetrHead(MomentHead):
    """Moment-DETR: one encoder over clips and words, and learned queries that each answer with a span."""

    name: ClassVar[str] = "moment_detr"
    Config: ClassVar[type] = MomentDetrConfig
    uses_negatives: ClassVar[bool] = False

    def __init__(self, config: MomentDetrConfig, shapes: TokenShapes) -> None:
        super().__init__()
        self.config = config
        sizes, dropout, pre_norm = (config.dim, config.num_heads, config.hidden), config.dropout, config.pre_norm
        self.inputs = MomentInputs(shapes.streams[FEATURES][0], shapes.text_dim, config)
        layers = [EncoderLayer(*sizes, dropout=dropout, pre_norm=pre_norm) for _ in range(config.encoder_layers)]
        self.encoder = Encoder(layers, final_norm=pre_norm)
        steps = [DecoderLayer(*sizes, dropout=dropout, pre_norm=pre_norm) for _ in range(config.decoder_layers)]
        self.decoder = PlainDecoder(steps, config.num_queries)
        self.predict = SpanPredictor(config.dim)
        self.saliency = nn.Linear(config.dim, 1)
        self.align = _Alignment(config) if config.aligns else None

    def forward(self, batch: MomentBatch) -> MomentOutput:
        assert batch.words is not None
        entered = self.inputs.enter_words(batch.words.states)
        words, word_mask = entered[batch.query_index], batch.words.mask[batch.query_index]
        clips, num_clips = self.inputs.enter_clips(batch.clips), batch.clips.shape[1]
        word_positions = self.inputs.positions_of_words(words)
        all_positions = [
            clip_positions(batch.clip_mask, self.config.dim),
            torch.zeros_like(words) if word_positions is None else word_positions,
        ]
        mask, positions = torch.cat([batch.clip_mask, word_mask], dim=1), torch.cat(all_positions, dim=1)
        memory = self.encoder(torch.cat([clips, words], dim=1), positions, mask)
        states = self.decoder(memory, mask, positions)
        logits, spans = self.predict(states)
        return MomentOutput(
            logits=logits,
            spans=spans,
            saliency=self.saliency(memory[:, :num_clips]).squeeze(-1).float(),
            extras={} if self.align is None else self.align(states, memory, num_clips),
        )

    def loss(self, output: MomentOutput, batch: MomentBatch) -> Losses:
        targets, losses = batch.targets, self.config.losses
        assert targets is not None
        terms, matches = set_losses(output.logits, output.spans, targets, losses, aux_loss=self.config.aux_loss)
        terms["saliency_margin"] = pair_term(output.saliency, targets, losses)
        if self.align is not None:
            terms |= self._alignment(output, batch, matches)
        parts = weighted(terms, losses.weights() | {"align": self.config.align_weight})
        return Losses(total=torch.stack(list(parts.values())).sum(), terms=parts)

    def _alignment(self, output: MomentOutput, batch: MomentBatch, matches: Matches) -> dict[str, Tensor]:
        assert batch.words is not None
        mask: Bool[Tensor, "items words"] = batch.words.mask[batch.query_index]
        values = alignment_loss(
            output.extras["aligned_queries"][0 if self.config.aux_loss else -1 :],
            output.extras["aligned_words"],
            # parity: the published term adds up padded words as well.
            torch.ones_like(mask) if self.config.published else mask,
            matches,
            temperature=self.config.align_temperature,
        )
        last = len(values) - 1
        return {"align" if layer == last else f"align_{layer}": value for layer, value in enumerate(values.unbind())}


class _Alignment(nn.Module):
    """Unit vectors of queries and words in one space."""

    def __init__(self, config: MomentDetrConfig) -> None:
        super().__init__()
        self.queries = nn.Linear(config.dim, config.align_dim)
        self.words = nn.Linear(config.dim, config.align_dim)
        # parity: the published heads project the clips too, for no loss.
        self.clips = nn.Linear(config.dim, config.align_dim) if config.published else None

    def forward(
        self,
        states: Float[Tensor, "layers items queries dim"],
        memory: Float[Tensor, "items tokens dim"],
        num_clips: int,
    ) -> dict[str, Tensor]:
        aligned = {
            "aligned_queries": F.normalize(self.queries(states).float(), dim=-1),
            "aligned_words": F.normalize(self.words(memory[:, num_clips:]).float(), dim=-1),
        }
        if self.clips is not None:
            aligned["aligned_clips"] = F.normalize(self.clips(memory[:, :num_clips]).float(), dim=-1)
        return aligned
