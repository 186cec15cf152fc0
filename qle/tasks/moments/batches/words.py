"""Words of a frozen encoder, encoded and packed once before the first step: every distinct query of a training once.

    QueryBank + queries -> rows of word vectors back to back -> Words of the queries of a batch

They are kept in 16 bits where that changes nothing (features that came in 16 bits), and come back in 32. Batches are padded to
multiples of eight words, so that shapes come again, and no further than the longest query of all: heads that know places for
so many words must not be asked for more.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from qle.data.loading.plan import RAM_SHARE, available_ram_bytes
from qle.runtime import num_tenants
from qle.text.bank import QueryBank
from qle.text.base import Words

CHUNK_QUERIES = 512
"""Encoded at a time."""
STEP_WORDS = 8


class PackedWords:
    """Words of numbered queries."""

    def __init__(self, bank: QueryBank, queries: Sequence[str], device: torch.device) -> None:
        parts = [_Encoded(bank.encode(part)) for part in _chunks(queries)]
        self._device = device
        self._count = torch.cat([part.count for part in parts]).numpy()
        self._begin, self._longest = np.cumsum(self._count) - self._count, int(self._count.max())
        self._states = _PaddedRows(torch.cat([part.states for part in parts]), device)
        self._sentence = _PaddedRows(torch.cat([part.sentence for part in parts]), device)
        norms = [part.norm for part in parts if part.norm is not None]
        self._norm = _PaddedRows(torch.cat(norms), device) if norms else None
        ids = [part.ids for part in parts if part.ids is not None]
        self._ids = _PaddedRows(torch.cat(ids), device) if ids else None

    def of(self, queries: np.ndarray) -> Words:
        """The words of these queries, in their order."""
        count = self._count[queries]
        length = min(-(-int(count.max()) // STEP_WORDS) * STEP_WORDS, self._longest)
        word = np.arange(length)
        mask = word < count[:, None]
        index = np.where(mask, self._begin[queries][:, None] + word, -1)
        return Words(
            states=self._states.take(index),
            mask=torch.from_numpy(mask).to(self._device, non_blocking=True),
            sentence=self._sentence.take(queries),
            sentence_norm=None if self._norm is None else self._norm.take(queries),
            ids=None if self._ids is None else self._ids.take(index),
        )


def packed_words(
    bank: QueryBank, queries: Sequence[str], device: torch.device, num_processes: int
) -> PackedWords | None:
    """None where the encoder is trained, or where its words take too much memory: then the loop asks the bank."""
    if not bank.encoder.is_frozen:
        return None
    sample = bank.encode(list(queries[:CHUNK_QUERIES]))
    bytes_each = (sample.states.nbytes + sample.sentence.nbytes) / len(sample.mask)
    if bytes_each * len(queries) * num_processes > RAM_SHARE * available_ram_bytes(num_tenants()):
        return None
    return PackedWords(bank, queries, device)


class _Encoded:
    """A chunk without padding, on the host."""

    def __init__(self, words: Words) -> None:
        mask = words.mask.cpu()
        self.count = mask.sum(1)
        self.states = words.states.detach().cpu()[mask]
        self.sentence = words.sentence.detach().cpu()
        self.norm = None if words.sentence_norm is None else words.sentence_norm.detach().cpu()
        self.ids = None if words.ids is None else words.ids.cpu()[mask]


class _PaddedRows:
    """Rows with a row of zeros behind them, which -1 names. On a CPU numpy takes them, since torch would wake its threads."""

    def __init__(self, rows: Tensor, device: torch.device) -> None:
        self._wide = rows.dtype
        if rows.dtype == torch.float32 and torch.equal(rows.half().float(), rows):
            rows = rows.half()
        rows = torch.cat([rows, rows.new_zeros(1, *rows.shape[1:])])
        self._zeros = len(rows) - 1
        self._array = rows.numpy() if device.type == "cpu" else None
        self._tensor = rows.to(device)

    def take(self, index: np.ndarray) -> Tensor:
        """(*index, *row)"""
        index = np.where(index < 0, self._zeros, index)
        if self._array is not None:
            return torch.from_numpy(np.take(self._array, index, axis=0, mode="clip")).to(self._wide)
        flat = torch.from_numpy(index.ravel()).to(self._tensor.device, non_blocking=True)
        return self._tensor.index_select(0, flat).view(*index.shape, *self._tensor.shape[1:]).to(self._wide)


def _chunks(queries: Sequence[str]) -> list[list[str]]:
    return [list(queries[start : start + CHUNK_QUERIES]) for start in range(0, len(queries), CHUNK_QUERIES)]
