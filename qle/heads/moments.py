"""The interface of heads that answer a query with spans, Moment-DETR and its family, and the batch that they see.

    FeaturePack + annotations -> MomentBatch -> forward -> MomentOutput -> loss      in training
                                                                        -> decode -> MomentScores    everywhere else

An item of a batch is a window of clips of one video and one query about it. Spans are fractions of the window: 0 is its
beginning, 1 its end. Every distinct text stands once in `queries` and is encoded once; `query_index` points into it. Where the
text encoder is frozen the words come with the batch, else the training loop adds them.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qle.heads.base import Head, Losses, moved
from qle.nn.detr.set_losses import set_loss_counts
from qle.text.base import TextEncoder, Words

FEATURES = "clips"
"""Name under which `TokenShapes.streams` tells such heads how wide the features of a clip are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentTargets:
    """What is true of the items. Drawn anew in every epoch where something is drawn."""

    spans: Float[Tensor, "targets 2"]
    """(centre, width) of all moments, item after item."""
    counts: tuple[int, ...]
    """Moments of each item. On the host: shapes depend on it."""
    relevant: Bool[Tensor, "items clips"]
    """The clip lies in a moment."""
    saliency: Float[Tensor, "items clips"]
    """Graded relevance, 0..12 (three raters' 0..4 added up), 0 where irrelevant; 1 inside a moment where nobody rated."""
    better: Int[Tensor, "items pairs"]
    """Clips that must score above ..."""
    worse: Int[Tensor, "items pairs"]
    """... these, pair by pair."""
    pair_mask: Bool[Tensor, "items pairs"]
    """False where an item has no such pair (all clips, or none, are relevant)."""

    def to(self, device: torch.device) -> "MomentTargets":
        return replace(self, **moved(self, device))


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentBatch:
    """A batch of items. Masks are True where something real stands; padding is zeros."""

    clips: Float[Tensor, "items clips dim"]
    """Features after the transform of the run (data/moments/features.py): normalised, joined, with temporal endpoints."""
    clip_mask: Bool[Tensor, "items clips"]
    queries: tuple[str, ...]
    """Distinct texts."""
    query_index: Int[Tensor, " items"]
    sources: Int[Tensor, " items"]
    """Number of the recording that the item's video is cut from: items of one source are never each other's negatives.
    Items of one source stand next to each other where the head asks for groups."""
    negative: Int[Tensor, " items"] | None = None
    """The item whose query serves as one that does not happen here; None at inference: no negative pass is made."""
    negative_mask: Bool[Tensor, " items"] | None = None
    """False where the batch has no true negative for the item."""
    words: Words | None = None
    """The encoded `queries`; None until the loop puts them there."""
    targets: MomentTargets | None = None
    videos: tuple[str, ...] = ()
    first_clips: tuple[int, ...] = ()
    """Number of each window's first clip in its video."""

    @property
    def num_items(self) -> int:
        return len(self.clips)

    def item_words(self) -> Words:
        """The words of each item."""
        if self.words is None:
            raise ValueError("the words of the batch are not set")
        return self.words.select(self.query_index)

    def with_words(self, words: Words) -> "MomentBatch":
        return replace(self, words=words)

    def to(self, device: torch.device) -> "MomentBatch":
        return replace(self, **moved(self, device))


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentOutput:
    """What comes out of the network, before anything is cut or ranked. The last layer is the answer."""

    logits: Float[Tensor, "layers items queries 2"]
    """Raw; index 0 is the foreground."""
    spans: Float[Tensor, "layers items queries 2"]
    """(centre, width) in fractions of the window."""
    saliency: Float[Tensor, "items clips"]
    """Raw, unbounded; meaningless where the clip is padding."""
    negative_saliency: Float[Tensor, "items clips"] | None = None
    """The same for the negative query; None where no negative pass was made."""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """What the losses of one head need beside these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentScores:
    """Candidates of every item, not ranked, not merged."""

    spans: Float[Tensor, "items queries 2"]
    """(start, end) in fractions of the window, 0 <= start < end <= 1."""
    logit: Float[Tensor, "items queries"]
    """Log-odds of being a moment (foreground minus background), before calibration."""
    saliency: Float[Tensor, "items clips"]


class MomentHead(Head[MomentBatch, MomentOutput]):
    """A final class implements `forward` and `loss`. In evaluation mode an item's numbers depend on that item alone."""

    task: ClassVar[str] = "moments"
    streams = (FEATURES,)

    @abstractmethod
    def forward(self, batch: MomentBatch) -> MomentOutput:
        """`batch.words` must be set. The negative pass is made where `batch.negative` is, never else."""

    @abstractmethod
    def loss(self, output: MomentOutput, batch: MomentBatch) -> Losses:
        """`batch.targets` must be set."""

    @classmethod
    def settled(cls, config: Any, queries: Sequence[str], text: TextEncoder) -> Any:
        """The config with what only the training queries can tell (a vocabulary); called once, before the head is built."""
        return config

    @classmethod
    def notes(cls, config: Any) -> tuple[str, ...]:
        """What the user of a settled config should know before the training, and need not act on."""
        return ()

    def decode(self, output: MomentOutput) -> MomentScores:
        """Spans and scores of the last layer. Every span has a length above 0 and lies inside the window."""
        centre, width = output.spans[-1].float().unbind(-1)
        shortest = torch.finfo(torch.float32).eps
        start = (centre - width / 2).clamp(0.0, 1.0 - 2 * shortest)
        end = torch.maximum((centre + width / 2).clamp(0.0, 1.0), start + shortest)
        foreground, background = output.logits[-1].float().unbind(-1)
        return MomentScores(
            spans=torch.stack([start, end], dim=-1), logit=foreground - background, saliency=output.saliency.float()
        )

    def loss_counts(self, batch: MomentBatch) -> Mapping[str, Tensor]:
        """Terms of pairs are means over the matched pairs of a layer, all others over items, unless a head says otherwise."""
        assert batch.targets is not None
        config, device = self.config, batch.clips.device
        num_taught = config.decoder_layers if config.aux_loss else 1
        pairs = set_loss_counts(batch.targets.counts, config.num_queries, num_taught, device)
        return {"*": torch.tensor(batch.num_items, device=device), **pairs}
