"""`--text-encoder glove.6B.300d.txt` (or .vec): word vectors in the format of GloVe, word2vec and fastText texts.

    query -> words -> line of the file -> one vector a word; the sentence is their mean

The file is read through once at the start, to know where each word's line begins and what the file as a whole hashes to
(0.6 s for 400,000 words of 300 numbers, 1 GB); numbers are parsed only for the words that are asked for. Words that the file
lacks are left out, as the published uses of such vectors do; a query of nothing else is an error. Lower case throughout.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import xxhash
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from qle.config import config_to_dict
from qle.errors import ConfigError, InputError
from qle.text.base import Piece, TextEncoder, Words
from qle.text.queries import check_length, check_not_empty, quoted_query
from qle.text.request import TextRequest, lasting

MAX_WORDS = 64
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorFile:
    """Where the lines of a file of word vectors begin."""

    path: Path
    dim: int
    at: dict[bytes, tuple[int, int]]
    """Word -> (number of its line among the vectors, first byte of that line)."""
    digest: str
    """xxh3-128 of all bytes."""

    def vector(self, word: bytes) -> Float[np.ndarray, " dim"]:
        """The numbers behind a word, or InputError where the line is not what the others are."""
        number, first = self.at[word]
        with self.path.open("rb") as file:
            file.seek(first)
            parts = file.readline().split()
        try:
            vector = np.array(parts[1:], dtype=np.float32)
        except ValueError:
            vector = np.empty(0, dtype=np.float32)
        if parts[:1] != [word] or vector.shape != (self.dim,) or not np.isfinite(vector).all():
            raise InputError(
                f"{self.path}: the vector of {word.decode(errors='replace')!r} (number {number + 1}) is not {self.dim} numbers\n"
                "the file is damaged, or has changed meanwhile: fetch it again"
            )
        return vector


def open_vectors(path: Path) -> VectorFile:
    """One pass over the file. The first line may be the header of word2vec: number of words, and of numbers each."""
    at: dict[bytes, tuple[int, int]] = {}
    digest, first, number, dim = xxhash.xxh3_128(), 0, 0, 0
    try:
        with path.open("rb", buffering=_BLOCK_BYTES) as file:
            for line in file:
                digest.update(line)
                if dim == 0 and not (first == 0 and _is_header(line)):
                    dim = len(line.split()) - 1
                if dim:
                    at.setdefault(line[: line.find(b" ")], (number, first))
                    number += 1
                first += len(line)
    except OSError as error:
        raise InputError(
            f"{path}: word vectors cannot be read ({error.strerror or error})\ncheck --text-encoder"
        ) from error
    vectors = VectorFile(path=path, dim=dim, at=at, digest=digest.hexdigest())
    if dim < 2:
        raise InputError(f"{path}: expected lines of a word and its numbers, as in the text files of GloVe")
    vectors.vector(next(iter(at)))  # a text of another kind shows in its first line
    return vectors


def _is_header(line: bytes) -> bool:
    parts = line.split()
    return len(parts) == 2 and all(part.isdigit() for part in parts)


def build_vectors(request: TextRequest) -> "VectorText":
    """The vectors of the file that the request names."""
    if request.lora is not None:
        raise ConfigError(f"text encoder {request.name}: word vectors have no layers to adapt; drop --lora")
    if request.dim is not None:
        raise ConfigError(f"text.dim = {request.dim}: {request.name} has a width of its own; drop it")
    return VectorText(open_vectors(Path(request.name)), lasting(request))


class VectorText(TextEncoder):
    """A word means the same wherever it stands."""

    def __init__(self, file: VectorFile, request: TextRequest) -> None:
        super().__init__()
        self.name = request.name
        self.dim = self.sentence_dim = file.dim
        self.max_words = request.max_words or MAX_WORDS
        self._file = file
        self._request = request
        self._known: dict[bytes, Tensor] = {}
        self.register_buffer("place", torch.zeros(1), persistent=False)  # says which device words go to

    def forward(self, queries: Sequence[str]) -> Words:
        check_not_empty(queries)
        split = [self._words(query) for query in queries]
        states = pad_sequence(
            [torch.stack([self._vector(word) for word in words]) for words in split], batch_first=True
        )
        numbers = [torch.tensor([self._file.at[word][0] + 1 for word in words]) for words in split]
        lengths = torch.tensor([len(words) for words in split])
        sentence = (states.sum(dim=1) / lengths[:, None]).to(self.device)
        return Words(
            states=states.to(self.device),
            mask=(torch.arange(states.shape[1]) < lengths[:, None]).to(self.device),
            sentence=F.normalize(sentence, dim=-1),
            sentence_norm=sentence.norm(dim=-1),
            ids=pad_sequence(numbers, batch_first=True).to(self.device),
        )

    def check(self, query: str) -> None:
        self._words(query)

    def word_pieces(self, query: str) -> tuple[Piece, ...]:
        return tuple(Piece(self._file.at[word][0] + 1, word.decode()) for word in self._words(query))

    def spec(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "request": config_to_dict(self._request),
            "architecture": {"class": "VectorText", "dim": self.dim},
            "weights": self._file.digest,
            "dim": self.dim,
            "sentence_dim": self.sentence_dim,
            "max_words": self.max_words,
        }

    def difference(self, spec: Mapping[str, Any]) -> str | None:
        return "the file is another, or has changed since"

    def _words(self, query: str) -> list[bytes]:
        tokens = split_tokens(query, lambda token: token.encode() in self._file.at)
        words = [word for token in tokens if (word := token.encode()) in self._file.at]
        check_length(query, len(tokens), self.max_words, num_marks=0, encoder=self.name)
        if not words:
            raise InputError(
                f"query {quoted_query(query)}: {self.name} has no vector for any of its words ({', '.join(tokens)[:60]})\n"
                "say it in other words, or take an encoder that reads any word, e.g. minilm"
            )
        return words

    def _vector(self, word: bytes) -> Tensor:
        if word not in self._known:
            self._known[word] = torch.from_numpy(self._file.vector(word))
        return self._known[word]


def split_tokens(query: str, is_known: Callable[[str], bool]) -> list[str]:
    """Runs of letters and digits in lower case. With a hyphen or apostrophe inside they stay whole where that is known,
    else they come apart as in the treebanks: "cutting-board" -> cutting board, "doesn't" -> does n't, "man's" -> man 's."""
    tokens: list[str] = []
    for token in re.findall(
        r"[^\W_]+(?:[-'][^\W_]+)*", unicodedata.normalize("NFKC", query).replace("\u2019", "'").lower()
    ):
        tokens += [token] if is_known(token) else _PARTS.findall(token)
    return tokens


_PARTS = re.compile(r"n't|'[^\W_]+|[^\W_]+?(?=n't|'|-|$)")
