"""The interface of heads that answer with spans: Moment-DETR and its family.

MomentBatch -> forward -> MomentOutput -> loss (training) | decode (everywhere else) -> MomentScores
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from qle.data.streams.batch import MomentBatch
from qle.heads.base import Head, Losses
from qle.nn.detr.set_losses import set_loss_counts
from qle.text.base import TextEncoder

FEATURES = "clips"
"""Name under which `TokenShapes.streams` tells such heads how wide the features of a clip are."""


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
        """Of the last layer. Every span has a length above 0 and lies inside the window."""
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
        pairs = set_loss_counts(batch.targets.counts, config.num_queries, config.decoder_layers, device)
        return {"*": torch.tensor(batch.num_items, device=device), **pairs}
