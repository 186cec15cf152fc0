"""Where items enter a head of the Moment-DETR family: clips and words at its width, with their positions.

clips (items, clips, clip_dim), words (queries, words, text_dim) -> MomentInputs -> both (..., dim), positions
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qle.nn.detr.clip_positions import WordPositions
from qle.nn.detr.config import DetrConfig
from qle.nn.projection import InputProjection


class MomentInputs(nn.Module):
    """Projections of clips and words, and the table of word positions."""

    def __init__(self, clip_dim: int, text_dim: int, config: DetrConfig) -> None:
        super().__init__()
        dim, num_layers, dropout = config.dim, config.projection_layers, config.input_dropout
        self.clips = InputProjection(clip_dim, dim, num_layers, dropout)
        self.words = InputProjection(text_dim, dim, num_layers, dropout)
        self.normalise_words, self.has_word_positions = config.normalise_words, config.word_positions
        # parity: the published heads always hold the table, even where it is not used and never learns.
        is_held = config.word_positions or config.published
        self.word_places = WordPositions(config.max_words, dim, dropout=dropout) if is_held else None

    def enter_clips(self, clips: Float[Tensor, "items clips clip_dim"]) -> Float[Tensor, "items clips dim"]:
        out: Tensor = self.clips(clips.float())
        return out

    def enter_words(self, states: Float[Tensor, "queries words text_dim"]) -> Float[Tensor, "queries words dim"]:
        states = states.float()
        out: Tensor = self.words(unit_rows(states) if self.normalise_words else states)
        return out

    def positions_of_words(
        self, words: Float[Tensor, "queries words dim"]
    ) -> Float[Tensor, "queries words dim"] | None:
        """Their positions; None where words have none."""
        return self.word_places(words) if self.word_places is not None and self.has_word_positions else None


def unit_rows(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    """x / (|x| + 1e-5), as the features of the published heads were made."""
    rows: Tensor = x / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + 1e-5)
    return rows
