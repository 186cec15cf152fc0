"""Published features of queries, one file a query, matched with annotations by qid.

    FEATURES/qid<qid>.npz [last_hidden_state (words, dim), pooler_output (dim,)] + annotations -> {query: (states, pooled)}

Also `<qid>.npz`; `.npy` with the words alone; `.pt` or `.pth` with a tensor of the words or a dict of the two. The same text
often has several qids; their features are the same unless the upstream cut or encoded them apart, which is told.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qle.cache.tools.feature_files import UNREADABLE, read_archive, read_array
from qle.data.annotations import Annotation
from qle.errors import InputError

SUFFIXES = (".npz", ".npy", ".pt", ".pth")
"""In the order in which they are taken where a query has several files."""
WORDS, SENTENCE = "last_hidden_state", "pooler_output"
NAMED = 4
"""How many qids a message names."""

Features = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True, kw_only=True)
class QueryFeatures:
    """What was found."""

    queries: dict[str, Features]
    """Text -> states of its words, and the sentence where there is one."""
    notes: list[str] = field(default_factory=list)


def read_query_features(
    folder: Path,
    annotations: Sequence[Annotation],
    *,
    allow_missing: bool = False,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> QueryFeatures:
    """Features of the queries of all annotations. InputError where qids have no file, unless `allow_missing`."""
    files = _files(folder)
    features_of, differing, missing = dict[str, Features](), dict[str, None](), dict[str, None]()
    for number, annotation in enumerate(annotations, start=1):
        path = files.get(f"qid{annotation.qid}") or files.get(annotation.qid)
        if path is None:
            missing[annotation.qid] = None
            continue
        features = read_features(path)
        text = " ".join(annotation.query.split())
        if not _is_same(features_of.setdefault(text, features), features):
            differing[annotation.qid] = None
        if on_progress is not None:
            on_progress(number, len(annotations), path.name)
    if missing and not (allow_missing and features_of):
        raise InputError(
            f"{folder}: no file for {len(missing):,} of {len(annotations):,} qids ({_listed(missing)}), e.g. "
            f"qid{next(iter(missing))}.npz\n"
            "name the folder of these annotations' features, or leave such queries out with --allow-missing"
        )
    notes = []
    if missing:
        notes.append(f"{len(missing):,} qids have no features and are left out: {_listed(missing)}")
    if differing:
        notes.append(
            f"{len(differing):,} qids ask in the same words as an earlier one and have other features; those of the first are "
            f"kept: {_listed(differing)}"
        )
    return QueryFeatures(queries=features_of, notes=notes)


def with_numbers(
    queries: Mapping[str, Features], tokenizer: str
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray | None, np.ndarray]], dict[int, str | None]]:
    """The same with the number of each word piece, and what the numbers stand for. InputError where the tokenizer makes
    another number of pieces of a query than it has features."""
    from qle.text.hf_load import piece_reader  # the library: only for those who ask for numbers

    read, numbered, spellings = piece_reader(tokenizer), {}, dict[int, str | None]()
    for query, (states, pooled) in queries.items():
        pieces = read(query)
        if len(pieces) != len(states):
            raise InputError(
                f"query {query!r}: features of {len(states)} words, and {tokenizer} makes {len(pieces)} word pieces of it\n"
                "--tokenizer must name the model that the features were made with"
            )
        numbered[query] = (states, pooled, np.array([piece.number for piece in pieces]))
        spellings |= dict(pieces)
    return numbered, spellings


def read_features(path: Path) -> Features:
    """Words and, where the file has one, the sentence; float16 or float32."""
    try:
        held = _held(path)
    except UNREADABLE as error:
        reason = next(iter(str(error).splitlines()), repr(error))
        raise InputError(f"{path}: features cannot be read ({reason})\nfetch the file again") from error
    _check_words(path, held)
    states, pooled = _numbers(path, held[WORDS], 2), None
    if SENTENCE in held:
        pooled = _numbers(path, held[SENTENCE], 1)
    return states, pooled


def _check_words(path: Path, names: Collection[str]) -> None:
    if WORDS not in names:
        raise InputError(f"{path}: no array {WORDS!r} in it, only {', '.join(names) or 'nothing'}")


def _files(folder: Path) -> dict[str, Path]:
    """By name without suffix. Names of the folder are looked up, so that no qid can lead out of it."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of query features")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.suffix != SUFFIXES[0]):
        if path.suffix in SUFFIXES:
            files.setdefault(path.stem, path)
    if not files:
        raise InputError(f"{folder}: no files of query features ({', '.join(SUFFIXES)}) lie directly in it")
    return files


def _held(path: Path) -> Mapping[str, Any]:
    if path.suffix in (".pt", ".pth"):
        from qle.weights import load_file  # torch: only for those who have such files

        loaded = load_file(path)
        return loaded if isinstance(loaded, Mapping) else {WORDS: loaded}
    if path.suffix == ".npy":
        return {WORDS: read_array(path)}

    def wanted(names: Sequence[str]) -> tuple[str, str]:
        _check_words(path, names)
        return WORDS, SENTENCE

    return read_archive(path, wanted)


def _numbers(path: Path, values: Any, num_axes: int) -> np.ndarray:
    """An array of so many axes; a leading axis of one query is taken off."""
    array = np.asarray(values.float() if hasattr(values, "float") else values)  # bfloat16 is unknown to numpy
    if array.ndim == num_axes + 1 and len(array) == 1:
        array = array[0]
    if array.ndim != num_axes or array.dtype.kind != "f":
        raise InputError(f"{path}: expected {num_axes} axes of numbers, got {array.dtype} {array.shape}")
    return array if array.dtype == np.float16 else array.astype(np.float32)


def _is_same(ours: Features, theirs: Features) -> bool:
    """Up to what half precision would change."""
    (states, pooled), (other_states, other_pooled) = ours, theirs
    if pooled is None or other_pooled is None:
        return pooled is other_pooled and _is_near(states, other_states)
    return _is_near(states, other_states) and _is_near(pooled, other_pooled)


def _is_near(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return ours.shape == theirs.shape and bool(np.allclose(ours, theirs, rtol=1e-2, atol=1e-3))


def _listed(qids: Mapping[str, None]) -> str:
    names = list(qids)
    return ", ".join(names[:NAMED]) + (f", ... and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
