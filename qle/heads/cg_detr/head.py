"""CG-DETR: clips listen to words as far as the query has to do with them (Moon et al., "Correlation-Guided Query-Dependency
Calibration in Video Representation Learning for Temporal Grounding").

    words + dummies --text encoder--> dummies
    clips --listen to words, dummies take the rest--> clips + saliency token --encoder--> memory --decoder--> spans
    in training also: moment and sentence tokens, whose agreement teaches where attention should go

Deviations from the published program, which `published` undoes: the mask of the attention of clips to words is per item;
attention over padded words teaches nothing and padded clips are not taught; every item counts once in the rank losses, whether
its batch has a negative for it or not; -log(1 - attention) is bounded; the dummies of an item are drawn evenly to all that
is not its moment, not to the first column of a tie; a batch without relevant clips gives 0 instead of NaN.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from qle.errors import ConfigError
from qle.heads.base import Losses, TokenShapes
from qle.heads.cg_detr.dummy_attention import CalibratedLayer
from qle.heads.cg_detr.losses import alignment_terms, attention_terms, saliency_terms, term_counts
from qle.heads.cg_detr.saliency_token import SaliencyToken
from qle.heads.moments import FEATURES, MomentBatch, MomentHead, MomentOutput
from qle.nn.detr.clip_positions import clip_positions
from qle.nn.detr.config import DetrConfig, check_weights
from qle.nn.detr.encoder import Encoder, EncoderLayer
from qle.nn.detr.inputs import MomentInputs
from qle.nn.detr.outputs import SpanPredictor, TokenSaliency
from qle.nn.detr.reference_decoder import ReferenceDecoder
from qle.nn.detr.set_losses import set_losses, weighted
from qle.nn.detr.text_to_video import published_mask

TEXT_HEADS = 8
"""parity: of the encoders of dummies and sentences, whatever `num_heads` is."""


@dataclass(frozen=True, kw_only=True)
class CgDetrConfig(DetrConfig):
    """Settings of the family, and of what makes dummies, sentences and moments."""

    encoder_layers: int = 3
    decoder_layers: int = 3
    text_to_video_layers: int = 2
    """Layers in which clips listen to words."""
    dummy_layers: int = 2
    """Layers of the text encoder that makes the dummies of a query."""
    sentence_layers: int = 1
    moment_layers: int = 1
    num_dummies: int = 45
    num_prompts: int = 10
    """Learned prompts of the saliency token ..."""
    kept_prompts: int = 1
    """... of which so many are mixed."""
    attention_weight: float = 1.0
    """Weight of the saliency losses on attention, within that of the saliency."""
    align_weight: float = 1.0
    distill_weight: float = 1.0
    """Weight of distillation, and of the orthogonality of dummies and prompts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("text_to_video_layers", "dummy_layers", "sentence_layers", "moment_layers", "num_dummies"):
            if getattr(self, name) < 1:
                raise ConfigError(f"head.{name} = {getattr(self, name)}: expected 1 or more")
        if self.dim % TEXT_HEADS:
            raise ConfigError(f"head.dim = {self.dim}: expected a multiple of {TEXT_HEADS}")
        if not 1 <= self.kept_prompts <= self.num_prompts:
            raise ConfigError(
                f"head.kept_prompts = {self.kept_prompts}: expected 1 to {self.num_prompts}, all there are"
            )
        check_weights(self, "attention_weight", "align_weight", "distill_weight")


@dataclass(frozen=True, slots=True)
class _DummiesAndWords:
    """Dummies, then words."""

    values: Float[Tensor, "items sources dim"]
    positions: Float[Tensor, "items sources dim"]
    mask: Bool[Tensor, "items sources"]

    def of(self, index: Tensor) -> "_DummiesAndWords":
        return _DummiesAndWords(self.values[index], self.positions[index], self.mask[index])


@dataclass(frozen=True, slots=True)
class _EnteredClips:
    """Projected clips."""

    clips: Float[Tensor, "items clips dim"]
    positions: Float[Tensor, "items clips dim"]
    mask: Bool[Tensor, "items clips"]

    def of(self, index: Tensor) -> "_EnteredClips":
        return _EnteredClips(self.clips[index], self.positions[index], self.mask[index])


@dataclass(frozen=True, slots=True)
class _Memory:
    """What encoder and attention made of a video under a query."""

    clips: Float[Tensor, "items clips dim"]
    saliency: Float[Tensor, "items clips"]
    weights: Float[Tensor, "items clips sources"]
    attention: Float[Tensor, "items clips"]
    """Share of it that words got, in [0, 1]."""


class CgDetrHead(MomentHead):
    """The whole network."""

    name: ClassVar[str] = "cg_detr"
    Config: ClassVar[type] = CgDetrConfig
    config: CgDetrConfig

    def __init__(self, config: CgDetrConfig, shapes: TokenShapes) -> None:
        super().__init__()
        self.config = config
        dim, sizes, dropout = config.dim, (config.dim, config.num_heads, config.hidden), config.dropout
        self.inputs = MomentInputs(shapes.streams[FEATURES][0], shapes.text_dim, config)
        self.kinds = nn.Parameter(torch.randn(2, dim) * 0.02)
        """Added to words (0) and clips (1)."""
        self.dummies, self.dummy_positions = _learned(config.num_dummies, dim), _learned(config.num_dummies, dim)
        self.sentence_token, self.sentence_position = _learned(dim), _learned(dim)
        self.moment_token, self.moment_position = _learned(dim), _learned(dim)
        self.dummy_encoder = _encoder(config, config.dummy_layers, TEXT_HEADS)
        self.sentence_encoder = _encoder(config, config.sentence_layers, TEXT_HEADS)
        self.moment_encoder = _encoder(config, config.moment_layers, config.num_heads)
        self.listen = nn.ModuleList(
            CalibratedLayer(*sizes, dropout=dropout) for _ in range(config.text_to_video_layers)
        )
        self.token = SaliencyToken(dim, config.num_prompts, config.kept_prompts)
        self.encoder = _encoder(config, config.encoder_layers, config.num_heads)
        self.decoder = ReferenceDecoder(
            *sizes, config.decoder_layers, config.num_queries, dropout=dropout, stochastic_depth=True
        )
        self.predict = SpanPredictor(dim)
        self.saliency = TokenSaliency(dim)

    def forward(self, batch: MomentBatch) -> MomentOutput:
        video, text = self._video(batch), self._text(batch)
        memory = self._read(video, text)
        states, references = self.decoder(memory.clips, video.mask, video.positions)
        extras = {
            "weights": memory.weights,
            "attention": memory.attention,
            "dummies": text.values[:, : self.config.num_dummies],
        }
        negative = None
        if batch.negative is not None:
            negative, extras["negative_attention"] = self._read_negative(batch, video, text)
        if batch.targets is not None:
            extras |= self._tokens(video, text, batch.targets.relevant)
        logits, spans = self.predict(states, references)
        return MomentOutput(
            logits=logits,
            spans=spans,
            saliency=memory.saliency,
            negative_saliency=negative,
            extras=extras,
        )

    def loss(self, output: MomentOutput, batch: MomentBatch) -> Losses:
        targets, config = batch.targets, self.config
        assert targets is not None
        terms, _ = set_losses(output.logits, output.spans, targets, config.losses, aux_loss=config.aux_loss)
        terms |= saliency_terms(output, batch, config.losses, published=config.published)
        terms |= attention_terms(output, batch, config.losses, published=config.published)
        terms |= alignment_terms(output.extras, batch, self.token.prompts, published=config.published)
        weights = {
            **config.losses.weights(),
            "attention": config.losses.saliency * config.attention_weight,
            "align": config.align_weight,
            "distill": config.distill_weight,
            "orthogonal": config.distill_weight,
        }
        scaled = weighted(terms, weights)
        return Losses(total=torch.stack(list(scaled.values())).sum(), terms=scaled)

    def loss_counts(self, batch: MomentBatch) -> Mapping[str, Tensor]:
        return {**super().loss_counts(batch), **term_counts(batch)}

    def _video(self, batch: MomentBatch) -> _EnteredClips:
        clips = self.inputs.enter_clips(batch.clips) + self.kinds[1]
        return _EnteredClips(clips, clip_positions(batch.clip_mask, self.config.dim), batch.clip_mask)

    def _text(self, batch: MomentBatch) -> _DummiesAndWords:
        """Words as they are, behind the dummies that the query makes."""
        item_words = batch.item_words()
        words = self.inputs.enter_words(item_words.states) + self.kinds[0]
        word_positions = self.inputs.positions_of_words(words)
        word_positions = torch.zeros_like(words) if word_positions is None else word_positions
        values, positions, mask = self._before(
            words, word_positions, item_words.mask, self.dummies, self.dummy_positions
        )
        made = self.dummy_encoder(values, positions, mask)[:, : self.config.num_dummies]
        return _DummiesAndWords(torch.cat([made, words], dim=1), positions, mask)

    def _read(self, video: _EnteredClips, text: _DummiesAndWords) -> _Memory:
        seen = text.mask[:, None, None, :]
        if self.config.published:
            seen = published_mask(video.mask, text.mask, self.config.num_heads)
        x, keys, words = video.clips, text.values + text.positions, text.values[:, self.config.num_dummies :]
        attentions = []
        for layer in self.listen:
            x, weights = layer(x, video.positions, keys, words, seen)
            attentions.append(weights)
        weights = torch.stack(attentions).mean(0)
        heard = weights[..., self.config.num_dummies :].sum(-1)
        token = self.token(video.clips, self._context(video), heard * video.mask)
        for layer in self.listen:
            assert isinstance(layer, CalibratedLayer)
            token = layer.alone(token)
        x, positions, mask = self._before(x, video.positions, video.mask, token, self.token.position)
        memory = self.encoder(x, positions, mask)
        token, clips = memory[:, 0], memory[:, 1:] + memory[:, :1]
        return _Memory(clips, self.saliency(clips, token), weights, heard.clamp(0, 1))

    def _read_negative(
        self, batch: MomentBatch, video: _EnteredClips, text: _DummiesAndWords
    ) -> tuple[Float[Tensor, "items clips"], Float[Tensor, "items clips"]]:
        """Saliency and attention under a query that does not happen; zeros where the batch has none for an item."""
        assert batch.negative is not None
        assert batch.negative_mask is not None
        # parity: words of the negative query stand where those of the true one stood.
        positions = text.positions if self.config.published else text.positions[batch.negative]
        other = _DummiesAndWords(text.values[batch.negative], positions, text.mask[batch.negative])
        if self.config.published:
            return self._read_some(batch.negative_mask.nonzero().flatten(), video, other)
        memory = self._read(video, other)
        saliency, attention = (
            values.masked_fill(~batch.negative_mask[:, None], 0.0) for values in (memory.saliency, memory.attention)
        )
        return saliency, attention

    def _read_some(
        self, items: Int[Tensor, " some"], video: _EnteredClips, text: _DummiesAndWords
    ) -> tuple[Float[Tensor, "items clips"], Float[Tensor, "items clips"]]:
        """parity: published masks depend on who else is read, so items without a negative are not."""
        zeros = video.clips.new_zeros(video.mask.shape)
        if not len(items):
            return zeros, zeros
        memory = self._read(video.of(items), text.of(items))
        saliency, attention = (
            zeros.to(values.dtype).index_copy(0, items, values) for values in (memory.saliency, memory.attention)
        )
        return saliency, attention

    def _tokens(
        self, video: _EnteredClips, text: _DummiesAndWords, relevant: Bool[Tensor, "items clips"]
    ) -> dict[str, Tensor]:
        """Sentence tokens of words and of dummies, moment tokens of what is relevant and of the rest."""
        sentence = self.sentence_token, self.sentence_position
        moment = self.moment_token, self.moment_position
        dummies, words = slice(None, self.config.num_dummies), slice(self.config.num_dummies, None)
        told = {
            name: self.sentence_encoder(
                *self._before(text.values[:, part], text.positions[:, part], text.mask[:, part], *sentence)
            )
            for name, part in (("dummies", dummies), ("words", words))
        }
        seen = {
            name: self.moment_encoder(*self._before(video.clips, video.positions, video.mask & mask, *moment))
            for name, mask in (("moment", relevant), ("rest", ~relevant))
        }
        sources = torch.cat([told["dummies"][:, 1:], told["words"][:, 1:]], dim=1)
        return {
            "sentence": told["words"][:, 0],
            "dummy_sentence": told["dummies"][:, 0],
            "moment": seen["moment"][:, 0],
            "rest": seen["rest"][:, 0],
            "similarity": seen["moment"][:, 1:] @ sources.transpose(1, 2),
            "frames": torch.where(relevant[..., None], seen["moment"][:, 1:], seen["rest"][:, 1:]),
            "source_mask": text.mask,
        }

    @staticmethod
    def _context(video: _EnteredClips) -> Float[Tensor, "items dim"]:
        """The mean clip, which learns nothing here."""
        real = video.mask[..., None].to(video.clips.dtype)
        return ((video.clips * real).sum(1) / real.sum(1).clamp(min=1)).detach()

    @staticmethod
    def _before(
        x: Float[Tensor, "items tokens dim"],
        positions: Float[Tensor, "items tokens dim"],
        mask: Bool[Tensor, "items tokens"],
        tokens: Tensor,
        token_positions: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Learned tokens, of each item or of all, in front of x; they are always seen."""
        items, dim = len(x), x.shape[-1]
        if tokens.ndim < 3:
            tokens = tokens.view(1, -1, dim).expand(items, -1, -1)
        token_positions = token_positions.view(1, -1, dim).expand(items, -1, -1)
        return (
            torch.cat([tokens.to(x.dtype), x], dim=1),
            torch.cat([token_positions.to(positions.dtype), positions], dim=1),
            torch.cat([mask.new_ones(tokens.shape[:2]), mask], dim=1),
        )


def _encoder(config: CgDetrConfig, num_layers: int, num_heads: int) -> Encoder:
    layers = [
        EncoderLayer(
            config.dim, num_heads, config.hidden, dropout=config.dropout, activation="prelu", stochastic_depth=True
        )
        for _ in range(num_layers)
    ]
    return Encoder(layers, final_norm=False)


def _learned(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))
