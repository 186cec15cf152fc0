"""The interface of text encoders: `encode(queries) -> Words`.

Queries repeat within a batch, so callers pass the distinct ones and index into the result (heads/rows.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Encoded queries."""

    states: Float[Tensor, "queries words text_dim"]
    """One vector a word piece; zeros where the mask is False."""
    mask: Bool[Tensor, "queries words"]
    """True: a real word. At least one in every query."""
    sentence: Float[Tensor, "queries sentence_dim"]
    """One vector for the whole query, L2-normalised."""
    sentence_norm: Float[Tensor, " queries"] | None = None
    """Its length before that, where the encoder knows it: CLIP's projected vectors are used raw by retrieval heads."""
    ids: Int[Tensor, "queries words"] | None = None
    """Number of each word piece in the encoder's vocabulary, where it has one; 0 where the mask is False."""

    def to(self, device: torch.device) -> "Words":
        return self._each(lambda tensor: tensor.to(device))

    def select(self, index: Tensor) -> "Words":
        return self._each(lambda tensor: tensor[index])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Words":
        return Words(
            states=change(self.states),
            mask=change(self.mask),
            sentence=change(self.sentence),
            sentence_norm=None if self.sentence_norm is None else change(self.sentence_norm),
            ids=None if self.ids is None else change(self.ids),
        )


class Piece(NamedTuple):
    """One word piece of a query."""

    number: int
    """As in `Words.ids`."""
    text: str | None
    """The word where the piece is a whole one, "" for marks of begin and end, None for parts of words and where nobody knows."""


class TextEncoder(nn.Module, ABC):
    """A module: its trainable parameters (all of `tiny`, the LoRA adapter of others, none of a frozen one) are optimised
    together with the head. `train_state()` is exactly those."""

    name: str
    """What the user asked for: tiny, minilm, or a Hugging Face id or folder."""
    dim: int
    """Numbers of a word vector."""
    sentence_dim: int
    max_words: int
    """Word pieces of the longest query that it reads; longer ones are an InputError of `check`, never cut silently."""

    @abstractmethod
    def forward(self, queries: Sequence[str]) -> Words:
        """Distinct queries to words, on the device of the module. Padding to the longest of them changes no number."""

    @abstractmethod
    def check(self, query: str) -> None:
        """InputError where the query is empty or longer than `max_words`."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """JSON that rebuilds it (name, weights digest, LoRA settings): stored in the run, compared at load."""

    def word_pieces(self, query: str) -> tuple[Piece, ...] | None:
        """What `forward` makes of a query, without running it; None where pieces have no numbers."""
        return None

    def is_as(self, spec: Mapping[str, Any]) -> bool:
        """It gives the numbers of the encoder that `spec` was taken from, before anything is trained."""
        return self.spec().get("weights") == spec.get("weights")

    def difference(self, spec: Mapping[str, Any]) -> str | None:
        """Where it is not as `spec`: what of its numbers differs, for people. None: nothing but the digest can be told."""
        return None

    @property
    def device(self) -> torch.device:
        """Where words come out."""
        return next(chain(self.parameters(), self.buffers())).device

    @property
    def is_frozen(self) -> bool:
        return not any(parameter.requires_grad for parameter in self.parameters())

    def train_state(self) -> dict[str, Tensor]:
        """The trainable tensors alone, by name: what the run saves."""
        return {name: tensor.detach() for name, tensor in self.named_parameters() if tensor.requires_grad}

    def load_train_state(self, state: Mapping[str, Tensor]) -> None:
        """Back onto the base; CheckpointError unless names and shapes are exactly the trainable ones."""
        from qle.weights import check_tensors

        own = {name: tensor for name, tensor in self.named_parameters() if tensor.requires_grad}
        check_tensors({name: tensor.shape for name, tensor in own.items()}, state, where=f"text encoder {self.name}")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])
