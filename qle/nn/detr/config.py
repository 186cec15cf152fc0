"""Settings that all heads of the Moment-DETR family have; the config of each head adds its own.

Defaults are those published for QVHighlights.
"""

import math
from dataclasses import dataclass, field

from qle.errors import ConfigError
from qle.nn.detr.set_losses import SetLossConfig

_COUNTS = (
    "dim", "num_heads", "hidden", "encoder_layers", "decoder_layers", "num_queries", "projection_layers", "max_words",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DetrConfig:
    """Sizes, dropout, what is kept of the published code, weights of losses."""

    dim: int = 256
    """Width of the head."""
    num_heads: int = 8
    hidden: int = 1024
    """Width of the feed-forward parts."""
    encoder_layers: int = 2
    decoder_layers: int = 2
    num_queries: int = 10
    """Spans that are predicted for each item: no more moments than that can be found at once."""
    dropout: float = 0.1
    projection_layers: int = 2
    """Layers of the projections of clips and of words."""
    input_dropout: float = 0.5
    """Within those."""
    word_positions: bool = False
    """Words know their place in the query."""
    max_words: int = 32
    """Most word pieces of a query that have a place; it only matters with word_positions."""
    normalise_words: bool = True
    """Word vectors are scaled to unit length, x / (|x| + 1e-5), as the published features were."""
    aux_loss: bool = True
    """Every layer of the decoder is taught (published so); else the last one alone, whose answer is the head's."""
    published: bool = False
    """parity: the faults of the published code are kept, so that its weights give its numbers."""
    losses: SetLossConfig = field(default_factory=SetLossConfig)

    def __post_init__(self) -> None:
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ConfigError(f"head.{name} = {getattr(self, name)}: expected 1 or more")
        if self.dim % self.num_heads or self.dim % 4:
            raise ConfigError(f"head.dim = {self.dim}: expected a multiple of 4 and of num_heads = {self.num_heads}")
        for name in ("dropout", "input_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"head.{name} = {getattr(self, name)}: expected 0 or more and below 1")


def check_weights(config: DetrConfig, *names: str) -> None:
    """ConfigError unless these fields are finite and not negative."""
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            raise ConfigError(f"head.{name} = {getattr(config, name)}: expected 0 or more")
