"""Each distinct query is encoded once: within a call always, over a whole run where the encoder is frozen.

queries (with repeats) -> the distinct ones that are not kept -> encoder -> Words in the order of the queries
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from qle.text.base import TextEncoder, Words
from qle.text.queries import check_not_empty

KEEP_BYTES = 64 << 20
"""Several thousand short queries of a wide encoder."""
QUERIES_PER_PASS = 128
"""Queries that a frozen encoder reads at a time, so that ten thousand queries need no more memory than these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """One query without padding, on the encoder's device."""

    states: Float[Tensor, "words text_dim"]
    sentence: Float[Tensor, " sentence_dim"]
    sentence_norm: Float[Tensor, ""] | None
    ids: Int[Tensor, " words"] | None

    @property
    def num_bytes(self) -> int:
        tensors = (self.states, self.sentence, self.sentence_norm, self.ids)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


class QueryBank:
    """An encoder with a memory. Encodings are kept only while no parameter of it requires gradients; they are forgotten when
    its weights are written to or moved. The least recently used go first once `keep_bytes` are full."""

    def __init__(self, encoder: TextEncoder, *, keep_bytes: int = KEEP_BYTES) -> None:
        self.encoder = encoder
        self._keep_bytes = keep_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._num_bytes = 0
        self._weights: tuple[object, ...] | None = None

    def encode(self, queries: Sequence[str]) -> Words:
        """One row for each query, in their order. Gradients flow where the encoder is trained."""
        check_not_empty(queries)
        distinct = tuple(dict.fromkeys(queries))
        if self.encoder.is_frozen:
            return _stacked(queries, self._recalled(distinct))
        words: Words = self.encoder(distinct)
        if len(distinct) == len(queries):
            return words
        number = {query: k for k, query in enumerate(distinct)}
        return words.select(torch.tensor([number[query] for query in queries], device=words.mask.device))

    def forget(self) -> None:
        """Drop everything kept: for those who change weights behind torch's back (`parameter.data`)."""
        self._kept.clear()
        self._num_bytes = 0

    @property
    def num_kept(self) -> int:
        return len(self._kept)

    def _recalled(self, distinct: tuple[str, ...]) -> dict[str, _Kept]:
        """All of `distinct`, whether they fit into the memory or not."""
        tensors = ((tensor.data_ptr(), tensor._version) for tensor in self.encoder.parameters())
        weights = (self.encoder.device, *tensors)  # some encoders have no parameters, and are moved all the same
        if weights != self._weights:
            self.forget()
            self._weights = weights
        kept = {query: self._kept[query] for query in distinct if query in self._kept}
        new = [query for query in distinct if query not in kept]
        for start in range(0, len(new), QUERIES_PER_PASS):
            part = new[start : start + QUERIES_PER_PASS]
            kept |= dict(zip(part, self._encoded(part), strict=True))
        for query in distinct:
            self._keep(query, kept[query])
        return kept

    @torch.no_grad()
    def _encoded(self, queries: list[str]) -> list[_Kept]:
        # In full precision whatever surrounds the call: what is kept must not depend on who asked first.
        with torch.autocast(self.encoder.device.type, enabled=False):
            words: Words = self.encoder(queries)
        # Copies: a view would keep the whole padded batch alive.
        return [
            _Kept(
                states=words.states[row][mask],
                sentence=words.sentence[row].clone(),
                sentence_norm=None if words.sentence_norm is None else words.sentence_norm[row].clone(),
                ids=None if words.ids is None else words.ids[row][mask],
            )
            for row, mask in enumerate(words.mask)
        ]

    def _keep(self, query: str, kept: _Kept) -> None:
        if query in self._kept:
            self._kept.move_to_end(query)
            return
        self._kept[query] = kept
        self._num_bytes += kept.num_bytes
        while self._num_bytes > self._keep_bytes and self._kept:
            _, dropped = self._kept.popitem(last=False)
            self._num_bytes -= dropped.num_bytes


def _stacked(queries: Sequence[str], kept: dict[str, _Kept]) -> Words:
    rows = [kept[query] for query in queries]
    states = pad_sequence([row.states for row in rows], batch_first=True)
    lengths = torch.tensor([len(row.states) for row in rows])
    norms = [row.sentence_norm for row in rows if row.sentence_norm is not None]
    ids = [row.ids for row in rows if row.ids is not None]
    return Words(
        states=states,
        mask=(torch.arange(states.shape[1]) < lengths[:, None]).to(states.device),
        sentence=torch.stack([row.sentence for row in rows]),
        sentence_norm=torch.stack(norms) if norms else None,
        ids=pad_sequence(ids, batch_first=True) if ids else None,
    )
