"""Encodings of known queries in one safetensors file: what published features of queries are gathered into. No torch.

    {query: (states, pooled)} --write_stored_words--> words.safetensors --StoredQueries--> states, pooled of one query

The file holds the words of all queries end to end without padding, where each query ends, and the queries themselves.
Numbers are kept as they come: float16 where everything is float16, else float32.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from qle.durable import name_beside
from qle.errors import InputError
from qle.inputs import parse_json

FORMAT = "qle-words-1"
NUM_WITNESSES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredQuery:
    """One query of the file."""

    states: np.ndarray
    """(words, dim) float16 or float32, as the encoder made them."""
    pooled: np.ndarray
    """(sentence_dim,): as the encoder made it, not scaled; the mean of the words where there was none."""
    ids: np.ndarray | None
    """(words,) int64: numbers of the word pieces."""


def write_stored_words(
    path: Path,
    queries: Mapping[str, Sequence[np.ndarray | None]],
    spellings: Mapping[int, str | None] | None = None,
) -> None:
    """`queries`: text -> (states (words, dim), pooled (sentence_dim,) or None[, ids (words,) or None]), numpy arrays or what
    turns into them. `spellings`: what the numbers among the ids stand for, as in `text.base.Piece`. The file is replaced at
    once or not at all; InputError for numbers that cannot be words."""
    rows = {" ".join(query.split()): _checked(query, *entry) for query, entry in queries.items()}
    if not rows:
        raise InputError(f"{path}: no queries to write")
    dims = {(row.states.shape[1], len(row.pooled)) for row in rows.values()}
    if len(dims) > 1:
        raise InputError(
            f"{path}: queries of different widths (word, sentence): {', '.join(map(str, sorted(dims)))}\n"
            "take features of one encoder"
        )
    is_half = all(row.states.dtype == np.float16 for row in rows.values())
    tensors = {
        "states": np.concatenate([row.states for row in rows.values()]).astype(np.float16 if is_half else np.float32),
        "pooled": np.stack([row.pooled for row in rows.values()]).astype(np.float32),
        "ends": np.cumsum([len(row.states) for row in rows.values()], dtype=np.int64),
        "queries": _packed(list(rows)),
    }
    ids = [row.ids for row in rows.values() if row.ids is not None]
    if ids:
        if len(ids) < len(rows):
            raise InputError(
                f"{path}: numbers of word pieces are given for {len(ids)} of {len(rows)} queries\ngive all or none"
            )
        tensors["ids"] = np.concatenate(ids).astype(np.int64)
        tensors["spellings"] = _packed({str(number): text for number, text in (spellings or {}).items()})
    _replace(path, save(tensors, metadata={"format": FORMAT}))


def _checked(
    query: str, states: np.ndarray | None, pooled: np.ndarray | None, ids: np.ndarray | None = None
) -> StoredQuery:
    states = np.asarray(states)
    if states.ndim != 2 or 0 in states.shape or states.dtype.kind != "f":
        raise InputError(f"query {query!r}: expected (words, dim) numbers, got {states.dtype} {states.shape}")
    pooled = states.mean(axis=0, dtype=np.float32) if pooled is None else np.asarray(pooled)
    if pooled.ndim != 1 or not len(pooled) or pooled.dtype.kind != "f":
        raise InputError(f"query {query!r}: expected a vector of the sentence, got {pooled.dtype} {pooled.shape}")
    if not (np.isfinite(states).all() and np.isfinite(pooled).all() and pooled.any()):
        raise InputError(f"query {query!r}: its features are not finite, or its sentence is all zeros")
    if ids is not None and np.shape(ids) != (len(states),):
        raise InputError(f"query {query!r}: {np.shape(ids)} numbers of word pieces for {len(states)} words")
    return StoredQuery(states=states, pooled=pooled, ids=None if ids is None else np.asarray(ids))


def _packed(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value, ensure_ascii=False).encode(), dtype=np.uint8)


def _replace(path: Path, content: bytes) -> None:
    beside = name_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        with suppress(OSError):  # where the folder is a file there is nothing to take away either
            beside.unlink()
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


class StoredQueries:
    """An open file: small things in memory, words are read when they are asked for."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = _open(path)
            if (self._file.metadata() or {}).get("format") != FORMAT:
                raise InputError(
                    f"{path}: safetensors, but no stored queries\n"
                    "a folder holds a model; for features of queries run: qle prepare words --help"
                )
            texts = parse_json(self._file.get_tensor("queries").tobytes())
            self._ends = self._file.get_tensor("ends")
            self._pooled, self._states = self._file.get_slice("pooled"), self._file.get_slice("states")
            self._ids, self._spellings = None, {}
            if "ids" in self._file.keys():  # noqa: SIM118 - an open file is no dict
                self._ids = self._file.get_tensor("ids")
                self._spellings = parse_json(self._file.get_tensor("spellings").tobytes())
        except FileNotFoundError as error:
            raise InputError(
                f"{path}: no such file of stored queries\nmake it with: qle prepare words --help"
            ) from error
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(
                f"{path}: damaged or cut short ({error})\nmake it again: qle prepare words --help"
            ) from error
        self._number = {text: number for number, text in enumerate(texts)}
        self.dim, self.sentence_dim = self._states.get_shape()[1], self._pooled.get_shape()[1]
        self.max_words = int(np.diff(self._ends, prepend=0).max())

    def __len__(self) -> int:
        return len(self._number)

    def __contains__(self, query: str) -> bool:
        return " ".join(query.split()) in self._number

    def texts(self) -> tuple[str, ...]:
        return tuple(self._number)

    def spelling(self, number: int) -> str | None:
        """What a word piece stands for, as in `text.base.Piece`; None where the file does not say."""
        spelling: str | None = self._spellings.get(str(number))
        return spelling

    def query(self, query: str) -> StoredQuery:
        """KeyError for one that the file does not hold. Spaces aside, it must be the same text."""
        number = self._number[" ".join(query.split())]
        first, stop = int(self._ends[number - 1]) if number else 0, int(self._ends[number])
        return StoredQuery(
            states=self._states[first:stop],
            pooled=self._pooled[number : number + 1][0],
            ids=None if self._ids is None else self._ids[first:stop],
        )

    def witnesses(self) -> list[str]:
        """Some queries with their numbers, as "text hash:numbers hash": enough to tell another encoder, and still true of a
        file that has grown by more queries."""
        chosen = sorted((_text_hash(text), text) for text in self._number)[:NUM_WITNESSES]
        return [f"{mark}:{self._hash(text)}" for mark, text in chosen]

    def digest(self, queries: Iterable[str]) -> str:
        """Digest of what it says about these queries, those that it does not hold left out."""
        texts = sorted({text for query in queries if (text := " ".join(query.split())) in self._number})
        return xxhash.xxh3_128_hexdigest("".join(f"{_text_hash(text)}:{self._hash(text)}" for text in texts).encode())

    def bears_out(self, witnesses: Sequence[str]) -> bool:
        """Every one of them is here, with the same numbers."""
        return bool(witnesses) and self.differences(witnesses) == ([], 0)

    def differences(self, witnesses: Sequence[str]) -> tuple[list[str], int]:
        """Those of these queries that have other numbers here, and how many are not here."""
        texts = {_text_hash(text): text for text in self._number}
        known = [(texts.get(mark), numbers) for mark, _, numbers in (witness.partition(":") for witness in witnesses)]
        others = [text for text, numbers in known if text is not None and self._hash(text) != numbers]
        return others, sum(text is None for text, _ in known)

    def _hash(self, text: str) -> str:
        features = self.query(text)
        numbers = np.concatenate([features.states.ravel(), features.pooled], dtype=np.float32)
        return xxhash.xxh3_128_hexdigest(numbers.tobytes() + (b"" if features.ids is None else features.ids.tobytes()))


def _open(path: Path) -> Any:
    return safe_open(path, "numpy")


def _text_hash(text: str) -> str:
    return xxhash.xxh3_64_hexdigest(text.encode())
