"""Sentences of many queries, without their words: what heads that rank videos read.

A hundred thousand captions with a state for every word are tens of gigabytes; their sentences are two hundred megabytes.
"""

from collections.abc import Sequence

import torch

from qle.text.bank import QueryBank
from qle.text.base import Words

QUERIES_PER_PASS = 512


def sentences_of(text: QueryBank, queries: Sequence[str], device: torch.device) -> Words:
    """One row for each query; `states` and `mask` have no words. Without gradients."""
    parts: list[Words] = []
    with torch.no_grad():
        for first in range(0, len(queries), QUERIES_PER_PASS):
            words = text.encode(queries[first : first + QUERIES_PER_PASS])
            parts.append(
                Words(
                    states=words.states[:, :0].to(device),
                    mask=words.mask[:, :0].to(device),
                    sentence=words.sentence.to(device),
                    sentence_norm=None if words.sentence_norm is None else words.sentence_norm.to(device),
                )
            )
    norms = [part.sentence_norm for part in parts if part.sentence_norm is not None]
    return Words(
        states=torch.cat([part.states for part in parts]),
        mask=torch.cat([part.mask for part in parts]),
        sentence=torch.cat([part.sentence for part in parts]),
        sentence_norm=torch.cat(norms) if norms else None,
    )
