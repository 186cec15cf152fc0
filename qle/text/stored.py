"""`--text-encoder FILE.safetensors`: encodings of known queries, where the encoder itself is not at hand.

    qle prepare words FEATURES --annotations A.jsonl --out words.safetensors  ->  StoredText: query -> its words

Published features of queries were made once, by models that are often not published with them. What is not in the file
cannot be asked; the error says so. Frozen: there is nothing to train.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from qle.config import config_to_dict
from qle.errors import ConfigError, InputError
from qle.text.base import Piece, TextEncoder, Words
from qle.text.queries import check_not_empty, quoted_query
from qle.text.request import TextRequest, lasting
from qle.text.words_file import StoredQueries, StoredQuery, write_stored_words

__all__ = ["StoredText", "build_stored", "write_stored_words"]


def build_stored(request: TextRequest) -> "StoredText":
    """The queries of the file that the request names."""
    for setting, value in (("lora", request.lora), ("dim", request.dim), ("max_words", request.max_words)):
        if value is not None:
            raise ConfigError(
                f"text.{setting}: {request.name} holds finished encodings, which take no settings; drop it"
            )
    return StoredText(StoredQueries(Path(request.name)), lasting(request))


class StoredText(TextEncoder):
    """Knows the queries of its file, word for word."""

    def __init__(self, stored: StoredQueries, request: TextRequest) -> None:
        super().__init__()
        self.name = request.name
        self.dim, self.sentence_dim, self.max_words = stored.dim, stored.sentence_dim, stored.max_words
        self._stored = stored
        self._request = request
        self.register_buffer("place", torch.zeros(1), persistent=False)  # says which device words go to

    def forward(self, queries: Sequence[str]) -> Words:
        check_not_empty(queries)
        for query in queries:
            self.check(query)
        rows = [self._stored.query(query) for query in queries]
        states = pad_sequence([_tensor(row.states) for row in rows], batch_first=True)
        lengths = torch.tensor([len(row.states) for row in rows])
        pooled = torch.stack([_tensor(row.pooled) for row in rows]).to(self.device)
        return Words(
            states=states.to(self.device),
            mask=(torch.arange(states.shape[1]) < lengths[:, None]).to(self.device),
            sentence=F.normalize(pooled, dim=-1),
            sentence_norm=pooled.norm(dim=-1),
            ids=self._padded_ids(rows),
        )

    def check(self, query: str) -> None:
        if not query.strip():
            raise InputError(f"empty query: {quoted_query(query)} has no words\nsay in words what to look for")
        if query in self._stored:
            return
        near = difflib.get_close_matches(query, self._stored.texts(), n=1, cutoff=0.8)
        raise InputError(
            f"query {quoted_query(query)} is not among the {len(self._stored):,} of {self.name}"
            + (f"; did you mean {quoted_query(near[0])}?" if near else "")
            + "\nadd its features to the file (qle prepare words), or train with an encoder that reads any query"
        )

    def word_pieces(self, query: str) -> tuple[Piece, ...] | None:
        self.check(query)
        ids = self._stored.query(query).ids
        return None if ids is None else tuple(Piece(number, self._stored.spelling(number)) for number in ids.tolist())

    def spec(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "request": config_to_dict(self._request),
            "architecture": {"class": "StoredText", "dim": self.dim, "sentence_dim": self.sentence_dim},
            "weights": self._stored.witnesses(),
            "dim": self.dim,
            "sentence_dim": self.sentence_dim,
            "max_words": self.max_words,
        }

    def is_as(self, spec: Mapping[str, Any]) -> bool:
        """Also where the file has grown: runs are asked about new videos with new queries."""
        return isinstance(witnesses := spec.get("weights"), list) and self._stored.bears_out(witnesses)

    def difference(self, spec: Mapping[str, Any]) -> str | None:
        if not isinstance(witnesses := spec.get("weights"), list):
            return None
        others, num_gone = self._stored.differences(witnesses)
        differences = [f"{len(others)} with other numbers, e.g. {quoted_query(others[0])}"] if others else []
        differences += [f"{num_gone} missing"] if num_gone else []
        return f"of {len(witnesses)} sampled queries, {', '.join(differences) or 'nothing'}"

    def _padded_ids(self, rows: Sequence[StoredQuery]) -> Tensor | None:
        ids = [torch.from_numpy(row.ids) for row in rows if row.ids is not None]
        return pad_sequence(ids, batch_first=True).to(self.device) if ids else None


def _tensor(numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(numbers, dtype=np.float32))
