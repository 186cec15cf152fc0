"""One unit vector a video, as one retriever sees its mean frame: what a shortlist of many videos is made with.

    means of the pooled index --head.coarse_frames--> coarse-<retriever>-<id>.f16 (rows, dim) float16, beside the index
    head.coarse(words) (texts, dim) x the mapped file, in blocks -> (texts, rows)

The head's layers over 100,000 means are 150 billion products, the product with a text 50 million: so the vectors are made
once for each retriever and kept, again as a cache that is appended to, checked by digests and never believed when torn. The
few newest retrievers stay. Where nothing can be written they live in memory, for one command.
"""

import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from qle.cache.handles import remove
from qle.cache.layout import space_hash
from qle.durable import sync_file, with_digest
from qle.heads.retrieval import RetrievalHead
from qle.runs.record import RunRecord
from qle.search.pooled import (
    FLOAT16,
    DamagedIndexError,
    PooledIndex,
    append_rows,
    digest_of,
    mapped,
    read_record,
    with_rows,
    write_lock,
    write_record,
)
from qle.types import OnProgress

ROWS_PER_BLOCK = 8192
KEPT_RETRIEVERS = 4


class CoarseRecord(BaseModel):
    """coarse-<retriever>.json"""

    model_config = ConfigDict(frozen=True, extra="ignore")

    vectors: str
    """The file of the index whose rows these are of."""
    file: str
    dim: int
    num_rows: int
    digests: tuple[tuple[int, int, str], ...]
    """(first row, row behind the last, xxh3-128) of all rows, part by part."""


class CoarseVectors:
    """One vector for every row of an index, those of removed videos included."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        """(rows, dim) float16, mapped."""

    def products(self, texts: Tensor) -> np.ndarray:
        """(texts, rows) float32: how alike each text and each row are, roughly. texts: (texts, dim) unit vectors."""
        products = np.empty((len(texts), len(self._values)), dtype=np.float32)
        turned = texts.float().T.contiguous()
        for first, block in _blocks(self._values):
            product = torch.from_numpy(block).to(texts.device).float() @ turned
            products[:, first : first + len(block)] = product.T.cpu().numpy()
        return products


def open_coarse(
    index: PooledIndex,
    head: RetrievalHead,
    record: RunRecord,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> CoarseVectors:
    """Those that are kept, with the ones that are missing made and kept. Call without gradients, the head in evaluation mode."""
    retriever = retriever_id(record)
    kept = _kept(index, retriever)
    if kept is not None:
        return CoarseVectors(kept)
    try:
        with write_lock(index.folder):
            kept = _kept(index, retriever)  # by another, while we waited
            return CoarseVectors(_extended(index, head, retriever, device, on_progress) if kept is None else kept)
    except OSError:  # CannotWriteError among them
        made = [_made(index, head, first, stop, device) for first, stop in _ranges(0, index.num_rows)]
        return CoarseVectors(np.concatenate(made) if made else np.empty((0, 1), FLOAT16))


def retriever_id(record: RunRecord) -> str:
    """Which numbers a head gives: its name, settings and weights."""
    return space_hash({"head": record.head, "config": record.head_config, "weights": dict(record.digests)})[:16]


def _extended(
    index: PooledIndex, head: RetrievalHead, retriever: str, device: torch.device, on_progress: OnProgress | None
) -> np.ndarray:
    known = _read(index, retriever)
    if known is not None and (known.num_rows >= index.num_rows or _checked(index, known) is None):
        known = None  # damaged
    file = f"coarse-{retriever}-{secrets.token_hex(4)}.f16" if known is None else known.file
    digests = [] if known is None else list(known.digests)
    dim, path = 0, index.folder / file
    for first, stop in _ranges(0 if known is None else known.num_rows, index.num_rows):
        made = _made(index, head, first, stop, device)
        append_rows(path, made, first)
        digests = with_rows(digests, path, made, first)
        dim = made.shape[1]
        if on_progress is not None:
            on_progress(stop, index.num_rows, "mean frames through the retriever")
    new = CoarseRecord(
        vectors=index.record.vectors, file=file, dim=dim or (known.dim if known else 1), num_rows=index.num_rows,
        digests=tuple(digests),
    )  # fmt: skip
    if index.num_rows:
        sync_file(path, "full")
    write_record(index.folder, _record_name(retriever), with_digest(new.model_dump_json()))
    _tidy(index.folder, retriever, file)
    return mapped(path, (new.num_rows, new.dim))


def _made(index: PooledIndex, head: RetrievalHead, first: int, stop: int, device: torch.device) -> np.ndarray:
    means = torch.from_numpy(index.means(first, stop)).to(device).float()
    frames: np.ndarray = head.coarse_frames(means).cpu().numpy().astype(FLOAT16)
    return frames


def _read(index: PooledIndex, retriever: str) -> CoarseRecord | None:
    content = read_record(index.folder, _record_name(retriever))
    if content is None:
        return None
    try:
        record = CoarseRecord.model_validate_json(content)
    except ValidationError:
        return None
    is_ours = record.vectors == index.record.vectors
    return record if is_ours and Path(record.file).name == record.file else None


def _kept(index: PooledIndex, retriever: str) -> np.ndarray | None:
    """The vectors that were kept of all rows of the index; there may be more by now."""
    known = _read(index, retriever)
    if known is None or known.num_rows < index.num_rows:
        return None
    values = _checked(index, known)
    return None if values is None else values[: index.num_rows]


def _checked(index: PooledIndex, known: CoarseRecord) -> np.ndarray | None:
    """Mapped; None where the bytes are not those that were written. All of them are read in a moment anyway."""
    try:
        values = mapped(index.folder / known.file, (known.num_rows, known.dim))
    except (OSError, DamagedIndexError):
        return None
    is_whole = all(digest_of(values[first:stop]) == digest for first, stop, digest in known.digests)
    return values if is_whole else None


def _tidy(folder: Path, retriever: str, file: str) -> None:
    """Another file of this retriever, and retrievers that were made longest ago."""
    records = sorted(folder.glob("coarse-*.json"), key=lambda path: path.lstat().st_mtime_ns, reverse=True)
    kept = {path.stem for path in records[:KEPT_RETRIEVERS]}
    for path in records[KEPT_RETRIEVERS:]:
        remove(folder.parent, path)
    for path in folder.glob("coarse-*.f16"):
        owner = path.stem.rpartition("-")[0]
        if owner not in kept or (owner == f"coarse-{retriever}" and path.name != file):
            remove(folder.parent, path)


def _record_name(retriever: str) -> str:
    return f"coarse-{retriever}.json"


def _ranges(first: int, stop: int) -> list[tuple[int, int]]:
    return [(start, min(start + ROWS_PER_BLOCK, stop)) for start in range(first, stop, ROWS_PER_BLOCK)]


def _blocks(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for first, stop in _ranges(0, len(values)):
        yield first, np.asarray(values[first:stop])
