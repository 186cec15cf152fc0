"""MESM (Liu et al. 2023, "Towards Balanced Alignment"): QD-DETR whose clips and words are brought closer on two levels.

    clips --enhance: listen to words--> clips --align: listen to [sentence, words]--> clips + token --encoder--> memory
      `--> a sentence that the video would have, from its clips alone          memory --decoder--> spans, saliency

Words: in training a third of the words is hidden, and must be told from the clips of the moment through the same layers that
enhance clips (it needs `Words.ids`; `settled` chooses the classes from the training queries, and `notes` says when it cannot).
Sentences: a moment should be nearer to its own text than to others. Content words are hidden twice as often as function words
(text/spelling.py has the list) and marks of begin and end never; published so with the tags of a trained tagger.

Different by default, undone by `published`: every clip hears all real words of its own query (published: the mask of another
item in some heads); the made-up sentence rests on the item's own window (published for QVHighlights, `sentence_clips =
"source"`: on all windows of the recording that happen to be in the batch); moments are the same only within one window, not
anywhere in the recording; the negative term is finite for every score; queries longer than `max_words` are read whole. In both
modes items without a moment count in neither of the two losses (the published program: NaN). As published, clips do not see the
token (`sees_token` changes that), and a negative query brings the sentence of its own video along.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.errors import ConfigError
from qle.heads.base import Losses, TokenShapes
from qle.heads.mesm.sentences import (
    SentenceRebuilder,
    clips_of_sources,
    outermost,
    published_sentence_mask,
    same_moment,
    sentence_loss,
)
from qle.heads.mesm.words import MutualLayer, WordClasses, WordRebuilder, draw_hidden, word_loss
from qle.heads.moments import FEATURES, MomentBatch, MomentHead, MomentOutput, MomentTargets
from qle.nn.detr.clip_positions import clip_positions
from qle.nn.detr.config import DetrConfig, check_weights
from qle.nn.detr.inputs import MomentInputs
from qle.nn.detr.saliency_losses import order_terms, pair_term
from qle.nn.detr.set_losses import set_losses, weighted
from qle.nn.detr.text_to_video import TextToVideoLayer, published_mask
from qle.nn.detr.token_detr import TokenDetr
from qle.nn.projection import InputProjection
from qle.nn.spans import to_edges
from qle.text.base import TextEncoder, Words
from qle.text.spelling import is_function_word


@dataclass(frozen=True, kw_only=True)
class MesmConfig(DetrConfig):
    """Settings of the family, and those that MESM adds. Defaults are those published for QVHighlights."""

    enhances: bool = True
    """Clips listen to words before they are aligned, through the layers that rebuild words."""
    enhance_layers: int = 2
    has_word_part: bool = False
    """Words that are rebuilt have feed-forward parts of their own (published for TACoS)."""
    align_layers: int = 2
    sentence_layers: int = 4
    """Layers that make the sentence of the video; 0: there is none."""
    sentence_clips: Literal["window", "source"] = "window"
    """What it is made from: the item's own clips, or those of all items of its recording in the batch."""
    sees_token: bool = False
    """Clips see the learned token in the encoder."""
    has_margin: bool = True
    """Pairs of clips teach saliency, too (published for QVHighlights and TACoS)."""
    word_weight: float = 0.5
    """Weight of the loss of rebuilt words; 0: none are rebuilt."""
    sentence_weight: float = 0.1
    """Weight of the loss that tells a moment's own text from others."""
    label_smoothing: float = 0.1
    sentence_temperature: float = 0.5
    same_giou: float = 0.9
    """Two queries mean the same moment where their outermost edges overlap so much."""
    vocabulary_size: int = 5000
    """Most word pieces that are classes of their own."""
    vocabulary: tuple[int, ...] = ()
    """Their numbers, the most frequent first; chosen from the training queries where it is empty. -1: not known."""
    marks: tuple[int, ...] = ()
    """Numbers of the marks of begin and end: classes behind all others, never hidden."""
    function_words: tuple[int, ...] = ()
    """Numbers of words that say little: hidden half as often."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("enhance_layers", "align_layers", "vocabulary_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"head.{name} = {getattr(self, name)}: expected 1 or more")
        if self.sentence_layers < 0:
            raise ConfigError(f"head.sentence_layers = {self.sentence_layers}: expected 0 or more")
        check_weights(self, "word_weight", "sentence_weight")
        if not 0 <= self.label_smoothing < 1 or not 0 < self.sentence_temperature < float("inf"):
            raise ConfigError("head: expected 0 <= label_smoothing < 1 and sentence_temperature > 0")

    @property
    def rebuilds_words(self) -> bool:
        return self.enhances and self.word_weight > 0 and bool(self.vocabulary)


@dataclass(frozen=True, slots=True)
class _HeardWords:
    """What the clips of each item listen to."""

    words: Float[Tensor, "items words dim"]
    positions: Float[Tensor, "items words dim"] | None
    mask: Bool[Tensor, "items words"]


class MesmHead(MomentHead):
    """MESM: finds moments, and rebuilds hidden words and sentences while it is trained."""

    name: ClassVar[str] = "mesm"
    Config: ClassVar[type] = MesmConfig

    def __init__(self, config: MesmConfig, shapes: TokenShapes) -> None:
        super().__init__()
        self.config = config
        sizes, dropout = (config.dim, config.num_heads, config.hidden), config.dropout
        has_sentence = config.sentence_layers > 0
        # The made-up sentence has the first place among the words.
        with_sentence = replace(config, max_words=config.max_words + has_sentence)
        self.inputs = MomentInputs(shapes.streams[FEATURES][0], shapes.text_dim, with_sentence)
        # parity: the layers are there even where nothing listens through them.
        num_enhance = config.enhance_layers if config.enhances or config.published else 0
        self.enhance = nn.ModuleList(
            MutualLayer(*sizes, dropout=dropout, has_word_part=config.has_word_part) for _ in range(num_enhance)
        )
        self.sentence = SentenceRebuilder(*sizes, config.sentence_layers, dropout=dropout) if has_sentence else None
        # parity: a projection of the made-up sentence that nothing reads.
        is_projected = has_sentence and config.published
        self.sentence_out = InputProjection(config.dim, config.dim, 2, config.input_dropout) if is_projected else None
        self.align = nn.ModuleList(TextToVideoLayer(*sizes, dropout=dropout) for _ in range(config.align_layers))
        self.detr = TokenDetr(config, sees_token=config.sees_token)
        self.classes, self.words = None, None
        if config.rebuilds_words:
            self.classes = WordClasses(config.vocabulary, config.marks, config.function_words)
            self.words = WordRebuilder(
                shapes.text_dim, config.dim, self.classes.num_classes, dropout=config.input_dropout
            )

    @classmethod
    def settled(cls, config: MesmConfig, queries: Sequence[str], text: TextEncoder) -> MesmConfig:
        """With the vocabulary of the training queries, where the text encoder numbers its word pieces."""
        if config.vocabulary or not (config.enhances and config.word_weight):
            return config
        counts: Counter[int] = Counter()
        marks, function_words = dict[int, None](), dict[int, None]()
        for query, times in Counter(queries).items():
            pieces = text.word_pieces(query)
            if pieces is None:
                return config
            for piece in pieces:
                if piece.text == "":
                    marks[piece.number] = None
                    continue
                counts[piece.number] += times
                if is_function_word(piece.text):
                    function_words[piece.number] = None
        frequent = sorted(counts, key=lambda number: (-counts[number], number))[: config.vocabulary_size]
        return replace(
            config, vocabulary=tuple(frequent), marks=tuple(marks), function_words=tuple(sorted(function_words))
        )

    @classmethod
    def notes(cls, config: MesmConfig) -> tuple[str, ...]:
        if config.enhances and config.word_weight and not config.vocabulary:
            return (
                "no word is hidden and rebuilt in training: this text encoder does not number its word pieces "
                "(encoders that read words themselves do, and files of prepared words that were made with --tokenizer)",
            )
        return ()

    def forward(self, batch: MomentBatch) -> MomentOutput:
        hidden = None
        if self.training and batch.targets is not None:
            hidden = self.draw_hidden_words(batch)
        return self.answer(batch, hidden)

    def draw_hidden_words(self, batch: MomentBatch) -> Bool[Tensor, "items words"] | None:
        """Which words of each item are hidden in this step; None where none are rebuilt."""
        words = self._read(batch)
        if self.classes is None or words.ids is None:
            return None
        weights = self.classes.weights(words.ids)[batch.query_index]
        return draw_hidden(weights, words.mask[batch.query_index])

    def answer(self, batch: MomentBatch, hidden_words: Bool[Tensor, "items words"] | None) -> MomentOutput:
        """`forward`, with words hidden as told; without them none are rebuilt."""
        read, rounds = self._read(batch), 1 if batch.negative is None else 2
        clips, positions = self.inputs.enter_clips(batch.clips), clip_positions(batch.clip_mask, self.config.dim)
        index = batch.query_index
        if batch.negative is not None:  # the items stand in the batch twice, first with their own query
            index = torch.cat([index, index[batch.negative]])
        words, mask = self.inputs.enter_words(read.states)[index], read.mask[index]
        text = _HeardWords(words, self.inputs.positions_of_words(words), mask)
        told = self._with_sentence(text, clips, batch)
        all_positions, heard = positions.repeat(rounds, 1, 1), clips.repeat(rounds, 1, 1)
        extras = {"clips": clips, "texts": told.words[: batch.num_items], "text_mask": told.mask[: batch.num_items]}
        if self.config.enhances:
            heard_text = self._published_positions(text, told, batch.num_items) if self.config.published else text
            who = self._who_hears(heard_text.mask, batch.clip_mask)
            for layer in self.enhance:
                heard = layer(heard, all_positions, heard_text.words, heard_text.positions, who)
            extras["enhanced"] = heard[: batch.num_items]
        who = self._who_hears(told.mask, batch.clip_mask)
        for layer in self.align:
            heard = layer(heard, all_positions, told.words, told.positions, who)
        logits, spans, saliency = self.detr(heard, positions, batch.clip_mask)
        if hidden_words is not None:
            extras |= self._rebuilt_words(batch, read, clips, positions, hidden_words)
        return MomentOutput(
            logits=logits,
            spans=spans,
            saliency=saliency[0],
            negative_saliency=None if rounds == 1 else saliency[1],
            extras=extras,
        )

    def loss(self, output: MomentOutput, batch: MomentBatch) -> Losses:
        targets, config = batch.targets, self.config
        assert targets is not None
        terms, _ = set_losses(output.logits, output.spans, targets, config.losses, aux_loss=config.aux_loss)
        if config.has_margin:
            terms["saliency_margin"] = pair_term(output.saliency, targets, config.losses)
        terms |= order_terms(
            output.saliency, output.negative_saliency, batch.clip_mask, batch.negative_mask, targets, config.losses,
            published=config.published,
        )  # fmt: skip
        has_moment = (targets.relevant & batch.clip_mask).any(dim=1)
        if self.sentence is not None:
            terms["sentence"] = self._sentence_term(output, batch, targets, has_moment)
        if "word_logits" in output.extras:
            extras = output.extras
            terms["word"] = word_loss(
                extras["word_logits"], extras["word_labels"], extras["word_mask"], has_moment,
                smoothing=config.label_smoothing,
            )  # fmt: skip
        weights = {**config.losses.weights(), "sentence": config.sentence_weight, "word": config.word_weight}
        parts = weighted(terms, weights)
        return Losses(total=torch.stack(list(parts.values())).sum(), terms=parts)

    def loss_counts(self, batch: MomentBatch) -> Mapping[str, Tensor]:
        assert batch.targets is not None
        num_moments = (batch.targets.relevant & batch.clip_mask).any(dim=1).sum()
        return {**super().loss_counts(batch), "sentence": num_moments, "word": num_moments}

    def _read(self, batch: MomentBatch) -> Words:
        """Words of the distinct queries."""
        assert batch.words is not None
        words, most = batch.words, self.config.max_words
        if not self.config.published or words.mask.shape[1] <= most:
            return words
        # parity: the end of a long query is not read.
        ids = None if words.ids is None else words.ids[:, :most]
        return replace(words, states=words.states[:, :most], mask=words.mask[:, :most], ids=ids)

    def _with_sentence(self, text: _HeardWords, clips: Tensor, batch: MomentBatch) -> _HeardWords:
        """The text with the made-up sentence in front: of the item's own video, or of that of its negative query."""
        if self.sentence is None:
            return text
        seen, mask = clips, batch.clip_mask
        if self.config.sentence_clips == "source":
            seen, mask = clips_of_sources(clips, mask, batch.sources)
        if self.config.published:
            mask = published_sentence_mask(mask, batch.sources, self.config.num_heads)
        sentence = self.sentence(seen, mask)[:, None]
        if batch.negative is not None:
            sentence = torch.cat([sentence, sentence[batch.negative]])
        words = torch.cat([sentence.to(text.words.dtype), text.words], dim=1)
        return _HeardWords(
            words,
            self.inputs.positions_of_words(words),
            torch.cat([text.mask.new_ones(len(words), 1), text.mask], dim=1),
        )

    @staticmethod
    def _published_positions(text: _HeardWords, told: _HeardWords, num_items: int) -> _HeardWords:
        """parity: words of negative queries keep the positions that they have behind the sentence."""
        if text.positions is None or told.positions is None or told.positions.shape == text.positions.shape:
            return text
        return replace(text, positions=torch.cat([text.positions[:num_items], told.positions[num_items:, 1:]]))

    def _who_hears(
        self, word_mask: Bool[Tensor, "rounds_items words"], clip_mask: Bool[Tensor, "items clips"]
    ) -> Bool[Tensor, "rounds_items ..."]:
        if not self.config.published:
            return word_mask
        masks = [
            published_mask(clip_mask, of_round, self.config.num_heads) for of_round in word_mask.split(len(clip_mask))
        ]
        return torch.cat(masks)

    def _rebuilt_words(
        self, batch: MomentBatch, read: Words, clips: Tensor, positions: Tensor, hidden: Bool[Tensor, "items words"]
    ) -> dict[str, Tensor]:
        """Words with holes look at the clips of the moment; what they come out as, and what they were."""
        assert self.classes is not None
        assert self.words is not None
        assert read.ids is not None
        assert batch.targets is not None
        labels = self.classes.labels(read.ids)[batch.query_index]
        mask, words = read.mask[batch.query_index], self.inputs.enter_words(read.states)[batch.query_index]
        word_positions = self.inputs.positions_of_words(words)
        word_positions = torch.zeros_like(words) if word_positions is None else word_positions
        is_unknown = (labels == self.classes.unknown) & mask
        words = self.words.hide(words, hidden, is_unknown, self.inputs.words)
        seen = batch.targets.relevant & batch.clip_mask
        who: Tensor = seen
        if self.config.published:  # parity: clips of the moment come first, and masks are in their order of heads
            order = seen.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
            clips, positions = (x.gather(1, order[..., None].expand_as(x)) for x in (clips, positions))
            who = published_mask(mask, seen.gather(1, order), self.config.num_heads)
        for layer in self.enhance:
            assert isinstance(layer, MutualLayer)
            words = layer.rebuild(words, word_positions, clips, positions, who)
        return {"word_logits": self.words(words), "word_labels": labels, "word_mask": mask}

    def _sentence_term(
        self, output: MomentOutput, batch: MomentBatch, targets: MomentTargets, has_moment: Bool[Tensor, " items"]
    ) -> Tensor:
        extras, config = output.extras, self.config
        seen, mask = (targets.relevant & batch.clip_mask)[..., None], extras["text_mask"][..., None]
        moments = (extras["clips"] * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1)
        texts = (extras["texts"] * mask).sum(dim=1) / mask.sum(dim=1)
        starts, ends = to_edges(targets.spans.float()).unbind(-1)
        groups = batch.sources if config.published else _windows(batch)
        same = same_moment(outermost(starts, ends, targets.counts), groups, config.same_giou)
        return sentence_loss(moments, texts, same, has_moment, temperature=config.sentence_temperature)


def _windows(batch: MomentBatch) -> Tensor:
    """Which items are about the same window; of a batch that does not say, about the same recording."""
    if not batch.videos:
        return batch.sources
    firsts = batch.first_clips or (0,) * batch.num_items
    number: dict[Any, int] = {}
    return torch.tensor(
        [number.setdefault(window, len(number)) for window in zip(batch.videos, firsts, strict=True)],
        device=batch.sources.device,
    )
