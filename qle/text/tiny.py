"""`tiny`: a text encoder of half a million numbers that is trained together with the head. No download, no vocabulary.

    query -> words -> hashed pieces (the word, and its 3 to 5 letters in a row) -> embedding -> positions -> one layer

A word that training never saw still shares letters with words that it did ("polyps", "polyp-like"), after the subword
vectors of Bojanowski et al. 2017 (arXiv 1607.04606). What it cannot know is that two different words mean the same: for
that, take a pretrained encoder. Half of a word's vector is its own and half comes from its letters, so that words that
share letters ("green", "grey") stay apart.
"""

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import xxhash
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.config import config_to_dict
from qle.errors import ConfigError
from qle.text.base import Piece, TextEncoder, Words
from qle.text.queries import check_length, check_not_empty
from qle.text.request import TextRequest

DIM = 64
MAX_WORDS = 64
NUM_BUCKETS = 8192
"""Rows of the embedding table; pieces that fall into the same one share it."""
LETTERS = (3, 4, 5)
NUM_HEADS = 4
DROPOUT = 0.1


def build_tiny(request: TextRequest) -> "TinyText":
    """Fresh weights, the same ones for the same seed."""
    if request.lora is not None:
        raise ConfigError("text encoder tiny is trained as a whole: drop --lora, or choose a pretrained encoder")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        return TinyText(request)


class TinyText(TextEncoder):
    """All of its parameters are trained."""

    def __init__(self, request: TextRequest) -> None:
        super().__init__()
        self.name = "tiny"
        self.dim = self.sentence_dim = request.dim or DIM
        self.max_words = request.max_words or MAX_WORDS
        self._request = request
        self.pieces = nn.EmbeddingBag(NUM_BUCKETS, self.dim, mode="sum")
        self.layer = _Layer(self.dim)
        self.norm = nn.LayerNorm(self.dim)

    def forward(self, queries: Sequence[str]) -> Words:
        check_not_empty(queries)
        split = [self._words(query) for query in queries]
        vectors, index = self._vectors(split)
        width = max(len(words) for words in split)
        mask = torch.arange(width) < torch.tensor([len(words) for words in split])[:, None]
        word_index = torch.zeros(mask.shape, dtype=torch.long)
        word_index[mask] = index  # row by row, as `index` runs through the queries
        ids = torch.zeros_like(word_index)
        ids[mask] = torch.tensor([number_of(word) for words in split for word in words])
        mask = mask.to(self.device)
        states = vectors[word_index.to(self.device)] + _positions(width, self.dim).to(vectors)
        states = self.norm(self.layer(states, mask)).masked_fill(~mask[..., None], 0.0)
        # The mean of the words. A sum: normalising takes out the number of words.
        sentence = F.normalize(states.sum(dim=1).float(), dim=-1)
        return Words(states=states, mask=mask, sentence=sentence, ids=ids.to(self.device))

    def check(self, query: str) -> None:
        self._words(query)

    def word_pieces(self, query: str) -> tuple[Piece, ...]:
        return tuple(Piece(number_of(word), word) for word in self._words(query))

    def spec(self) -> dict[str, Any]:
        architecture = {"class": "TinyText", "buckets": NUM_BUCKETS, "letters": list(LETTERS), "heads": NUM_HEADS}
        return {
            "name": self.name,
            "request": config_to_dict(self._request),
            "architecture": architecture,
            "weights": None,  # no base: the run's own weights are all there is
            "dim": self.dim,
            "sentence_dim": self.sentence_dim,
            "max_words": self.max_words,
        }

    def _words(self, query: str) -> list[str]:
        words = split_words(query)
        check_length(query, len(words), self.max_words, num_marks=0, encoder=self.name)
        return words

    def _vectors(self, split: list[list[str]]) -> tuple[Float[Tensor, "distinct dim"], Tensor]:
        """One vector for each distinct word, and which one stands at each word of all queries."""
        number = {word: k for k, word in enumerate(dict.fromkeys(word for words in split for word in words))}
        buckets: list[int] = []
        weights: list[float] = []
        offsets: list[int] = []
        for word in number:
            letters = letter_pieces(word)
            offsets.append(len(buckets))
            buckets += [bucket_of(word), *map(bucket_of, letters)]
            weights += [0.5, *([0.5 / len(letters)] * len(letters))]
        vectors: Tensor = self.pieces(
            torch.tensor(buckets, device=self.device),
            torch.tensor(offsets, device=self.device),
            per_sample_weights=torch.tensor(weights, device=self.device, dtype=self.pieces.weight.dtype),
        )
        # The halves add up to a variance of about 0.3 of the table's: the factor brings words back to the scale of positions.
        return vectors * math.sqrt(3.0), torch.tensor([number[word] for words in split for word in words])


def split_words(query: str) -> list[str]:
    """Runs of letters and digits, without case and without compatibility forms of the same letter."""
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", query).casefold())


def letter_pieces(word: str) -> list[str]:
    """Every 3, 4 and 5 letters in a row, begin and end of the word marked: "<polyp>" -> "<po", "pol", ..., "lyp>"."""
    marked = f"<{word}>"
    return [marked[at : at + size] for size in LETTERS for at in range(len(marked) - size + 1)]


def bucket_of(piece: str) -> int:
    """The same number in every process and on every machine, unlike hash()."""
    return xxhash.xxh3_64_intdigest(piece.encode()) % NUM_BUCKETS


def number_of(word: str) -> int:
    """The number of the bucket of a whole word, from 1 on: two words in some thousand share one."""
    return bucket_of(word) + 1


def _positions(width: int, dim: int) -> Float[Tensor, "words dim"]:
    """Sines and cosines (Vaswani et al. 2017): a learned table would be noise where no training query reached."""
    at = torch.arange(width, dtype=torch.float32)[:, None]
    speed = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(10_000.0) / dim))
    return torch.stack([(at * speed).sin(), (at * speed).cos()], dim=-1).flatten(1)


class _Layer(nn.Module):
    """One pre-norm transformer layer; words attend to the real words of their own query."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, 2 * dim)
        self.narrow = nn.Linear(2 * dim, dim)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(
        self, states: Float[Tensor, "queries words dim"], mask: Bool[Tensor, "queries words"]
    ) -> Float[Tensor, "queries words dim"]:
        joint = self.qkv(self.attention_norm(states)).unflatten(-1, (3, NUM_HEADS, -1))
        query, key, value = joint.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        states = states + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        update: Tensor = self.dropout(self.narrow(F.gelu(self.widen(self.mlp_norm(states)))))
        return states + update
