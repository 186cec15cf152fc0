"""Words that are hidden and told from the video (MESM, frame-word level): what is hidden, what is asked, what it costs.

ids of word pieces -> WordClasses -> labels, weights -> draw_hidden -> hidden words listen to clips -> WordRebuilder -> logits

Classes are the most frequent pieces of the training queries, one class for all others, and one for each mark of begin and end.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from qle.nn.attention import Attention
from qle.nn.detr.text_to_video import TextToVideoLayer
from qle.nn.dropout import Dropout
from qle.nn.projection import InputProjection

CONTENT_WEIGHT, FUNCTION_WEIGHT = 2.0, 1.0
"""How much rather a content word is hidden than a function word; marks never are."""
HIDDEN_SHARE = 3
"""One word in so many is hidden, rounded down, but at least one of two."""


class WordClasses(nn.Module):
    """Numbers of word pieces -> classes. The tables are made anew from the settings, never stored."""

    numbers: Tensor
    classes: Tensor
    marks: Tensor
    function_words: Tensor

    def __init__(self, vocabulary: Sequence[int], marks: Sequence[int], function_words: Sequence[int]) -> None:
        super().__init__()
        self.unknown, self.num_classes = len(vocabulary), len(vocabulary) + 1 + len(marks)
        classes = [*range(self.unknown), *range(self.unknown + 1, self.num_classes)]
        numbers, order = torch.tensor([*vocabulary, *marks]).sort()
        self.register_buffer("numbers", numbers, persistent=False)
        self.register_buffer("classes", torch.tensor(classes)[order], persistent=False)
        self.register_buffer("marks", torch.tensor(marks, dtype=torch.int64), persistent=False)
        self.register_buffer(
            "function_words", torch.tensor(function_words, dtype=torch.int64), persistent=False
        )  # fmt: skip

    def labels(self, ids: Int[Tensor, "items words"]) -> Int[Tensor, "items words"]:
        """The class of each piece; `unknown` for all that have none of their own."""
        index = torch.searchsorted(self.numbers, ids.contiguous()).clamp(max=len(self.numbers) - 1)
        return torch.where(self.numbers[index] == ids, self.classes[index], self.unknown)

    def weights(self, ids: Int[Tensor, "items words"]) -> Float[Tensor, "items words"]:
        """How likely each piece is hidden, against the others of its query."""
        is_function = torch.isin(ids, self.function_words)
        weights = torch.full(ids.shape, CONTENT_WEIGHT, device=ids.device).masked_fill(is_function, FUNCTION_WEIGHT)
        return weights.masked_fill(torch.isin(ids, self.marks), 0.0)


def draw_hidden(
    weights: Float[Tensor, "items words"], mask: Bool[Tensor, "items words"]
) -> Bool[Tensor, "items words"]:
    """Words to hide: a third of each query (marks counted), drawn without replacement by their weights; of a single word
    nothing is hidden. As likely as drawing one after the other (Efraimidis and Spirakis 2006), for all items at once."""
    length = mask.sum(dim=1)
    wanted = (length // HIDDEN_SHARE).clamp(min=1) * (length > 1)
    draws = torch.rand(weights.shape, device=weights.device).clamp(min=torch.finfo(torch.float32).tiny)
    keys = (draws.log() / weights).masked_fill(~mask | (weights <= 0), float("-inf"))
    rank = keys.argsort(dim=1, descending=True).argsort(dim=1)
    return (rank < wanted[:, None]) & mask & (weights > 0)


class MutualLayer(nn.Module):
    """One attention used in both directions: clips listen to words, and words with holes listen to clips."""

    def __init__(self, dim: int, num_heads: int, hidden: int, *, dropout: float, has_word_part: bool) -> None:
        """`has_word_part`: words have a feed-forward part of their own; else they share that of the clips."""
        super().__init__()
        self.listen = TextToVideoLayer(dim, num_heads, hidden, dropout=dropout)
        self.word_part = _WordPart(dim, hidden, dropout=dropout) if has_word_part else None

    def forward(
        self,
        clips: Float[Tensor, "items clips dim"],
        clip_positions: Float[Tensor, "items clips dim"],
        words: Float[Tensor, "items words dim"],
        word_positions: Float[Tensor, "items words dim"] | None,
        mask: Bool[Tensor, "items ..."],
    ) -> Float[Tensor, "items clips dim"]:
        """Clips, each with what it heard."""
        out: Tensor = self.listen(clips, clip_positions, words, word_positions, mask)
        return out

    def rebuild(
        self,
        words: Float[Tensor, "items words dim"],
        word_positions: Float[Tensor, "items words dim"],
        clips: Float[Tensor, "items clips dim"],
        clip_positions: Float[Tensor, "items clips dim"],
        mask: Bool[Tensor, "items ..."],
    ) -> Float[Tensor, "items words dim"]:
        """Words, each with what it saw."""
        if self.word_part is None:
            out: Tensor = self.listen(words, word_positions, clips, clip_positions, mask)
            return out
        attention: Attention = self.listen.attention
        seen = attention.look(words + word_positions, clips + clip_positions, clips, mask)
        rebuilt: Tensor = self.word_part(words, seen, self.listen.absorb.feed_forward[1])
        return rebuilt


class _WordPart(nn.Module):
    """As `Absorb` of the clips, with a slope that is lent by theirs."""

    def __init__(self, dim: int, hidden: int, *, dropout: float) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.drop = Dropout(dropout)

    def forward(
        self, words: Float[Tensor, "items words dim"], seen: Float[Tensor, "items words dim"], slope: nn.PReLU
    ) -> Float[Tensor, "items words dim"]:
        x = words + self.drop(seen)
        out: Tensor = self.norms[1](x + self.drop(self.narrow(self.drop(slope(self.widen(self.norms[0](x)))))))
        return out


class WordRebuilder(nn.Module):
    """What stands in a hole, what stands for a word without a class, and which word it was."""

    def __init__(self, text_dim: int, dim: int, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.hole, self.unknown = nn.Parameter(torch.zeros(text_dim)), nn.Parameter(torch.zeros(text_dim))
        self.enter = InputProjection(dim, dim, num_layers=1, dropout=dropout)
        self.name = nn.Linear(dim, num_classes)

    def hide(
        self,
        words: Float[Tensor, "items words dim"],
        is_hidden: Bool[Tensor, "items words"],
        is_unknown: Bool[Tensor, "items words"],
        project: InputProjection,
    ) -> Float[Tensor, "items words dim"]:
        """Words without a class become one vector, then hidden ones another; both enter as words do."""
        hole, unknown = (project(token[None, None]).to(words.dtype) for token in (self.hole, self.unknown))
        return torch.where(is_hidden[..., None], hole, torch.where(is_unknown[..., None], unknown, words))

    def forward(self, rebuilt: Float[Tensor, "items words dim"]) -> Float[Tensor, "items words classes"]:
        logits: Tensor = self.name(F.relu(self.enter(rebuilt)))
        return logits


def word_loss(
    logits: Float[Tensor, "items words classes"],
    labels: Int[Tensor, "items words"],
    mask: Bool[Tensor, "items words"],
    counts: Bool[Tensor, " items"],
    *,
    smoothing: float = 0.1,
) -> Float[Tensor, ""]:
    """Cross-entropy with smoothed labels: a mean over all real words of an item, hidden or not, then over items that count."""
    each = F.cross_entropy(
        logits.float().transpose(1, 2), labels, label_smoothing=smoothing, reduction="none"
    )  # fmt: skip
    of_item = (each * mask).sum(dim=1) / mask.sum(dim=1)
    return (of_item * counts).sum() / counts.sum().clamp(min=1)
