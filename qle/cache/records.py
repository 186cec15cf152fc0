"""The JSON records of a cache: what enters is text from a disk, what leaves is checked and typed, or an error that says why.

    qle-cache.json -> CacheRecord      space.json   -> SpaceRecord
    _COMMIT.json   -> CommitRecord     errors.jsonl -> ErrorRecord

The commit record is the truth about one video: a video without one does not exist, and everything else that lists
videos can be rebuilt from them. A record of this format may gain fields (unknown ones are ignored); anything that
changes the meaning of one raises FORMAT, and an older qle then refuses instead of guessing.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from qle.cache.layout import FORMAT, clean_key, space_hash
from qle.durable import fits_digest, with_digest
from qle.errors import CacheCorruptError, CacheMismatchError, CacheMissingError
from qle.inputs import NotARecordError, parse_json, read_record_bytes
from qle.types import SourceFingerprint, SpaceSpec, StoreKind, Stream

Count = Annotated[int, Field(ge=0)]
Text = Annotated[str, BeforeValidator(clean_key)]
"""Text that may come from a file system: what is no Unicode is escaped, since JSON cannot hold it."""


def _inside(path: str) -> str:
    """A cache may come from a stranger, and tools copy the files that its records name: none may lie elsewhere."""
    if not path or "\0" in path or "\\" in path or not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise ValueError(f"{path!a} is no path of a file inside the folder of the record")
    return path


InsidePath = Annotated[str, AfterValidator(_inside)]
"""Path of a file, relative to the folder that holds the record, "/" between parts."""


class Record(BaseModel):
    """Frozen, strict about types, blind to fields that a later qle may have added."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", ser_json_inf_nan="constants")

    format: Literal[1] = 1

    def to_json(self, *, indent: int | None = 1) -> str:
        return self.model_dump_json(indent=indent)


class SealedRecord(Record):
    """A record that carries a digest of itself, so that one flipped bit of it is noticed. Older ones without it are read too."""

    def to_json(self, *, indent: int | None = 1) -> str:
        return with_digest(self.model_dump_json(indent=indent)).decode()


class CacheRecord(SealedRecord):
    """qle-cache.json: this folder is a cache."""

    uuid: str
    created: datetime


class SpaceRecord(SealedRecord):
    """space.json: what a number in this space means."""

    name: str
    hash: str
    """sha256 of the canonical JSON of `hashed`."""
    hashed: dict[str, Any]
    streams: tuple[Stream, ...]
    """Token streams, `scale` included where `patch` is int8; `pts`, `index` and `valid` come with every video."""
    recorded: dict[str, Any]
    created: datetime

    @property
    def spec(self) -> SpaceSpec:
        return SpaceSpec(name=self.name, hashed=self.hashed, streams=self.streams, recorded=self.recorded)


class SourceFacts(BaseModel):
    """The video file that the rows were made from, as far as a later run must recognise it."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    path: Text
    """Absolute, so that later commands find it from any folder."""
    fingerprint: SourceFingerprint
    start_s: float | None = None
    """Only the part from here was extracted (manifests may list clips)."""
    end_s: float | None = None
    codec: str = ""
    width: Count = 0
    height: Count = 0
    duration_s: float = 0.0
    fps: float = 0.0
    """Average of the source, not of the rows."""
    num_frames: Count = 0
    frames_expected: Count | None = None
    """How many frames a file that broke off should have; None for a whole one. The video then is partial: it ends where the
    file does, at `num_frames`."""
    decoder: str = ""
    damaged_rows: tuple[tuple[int, int], ...] = ()
    """Ranges [first, stop) of rows whose frame the decoder called damaged. They are invalid unless `keeps_damaged`."""
    keeps_damaged: bool = False

    @property
    def num_damaged(self) -> int:
        return sum(stop - first for first, stop in self.damaged_rows)

    @property
    def faults(self) -> str:
        """What is wrong with the video, for people: "partial: 62 of 420 frames", "3 damaged rows"; empty where nothing is."""
        partial = f"partial: {self.num_frames} of {self.frames_expected} frames" if self.frames_expected else ""
        damaged = f"{self.num_damaged} damaged rows" if self.damaged_rows else ""
        return ", ".join(filter(None, (partial, damaged)))


class RawRows(BaseModel):
    """Where the rows of a stream lie as plain C-order little-endian bytes, so that they can be mapped.

    File number i holds rows [i * rows_per_file, (i + 1) * rows_per_file) of the array, from `offset` on without gaps.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: InsidePath
    """Relative to the video's folder; "{}" stands for the file number."""
    rows_per_file: Annotated[int, Field(ge=1)]
    offset: Count = 0
    rows_per_chunk: Count = 0
    """Zarr shards: rows of an inner chunk; the shard is padded to whole chunks and ends with its index. 0: no index."""
    first_row: Count = 0
    """Row of the array where this video begins; not 0 where many videos share an array."""


class StreamRecord(BaseModel):
    """One stored array."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    shape: Annotated[tuple[Count, ...], Field(min_length=1)]
    """With the row axis in front."""
    axes: tuple[str, ...]
    dtype: str
    """Logical dtype, as in Stream."""
    raw: RawRows | None
    """None: compressed or otherwise not mappable, to be read through zarr or h5py."""

    @property
    def stream(self) -> Stream:
        return Stream(name=self.name, row_shape=self.shape[1:], axes=self.axes, dtype=self.dtype)


class FileRecord(BaseModel):
    """One file of the video's folder, as it was when it was committed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: InsidePath
    size: Count
    xxh3: str
    """xxh3-128 in hex."""


class CommitRecord(SealedRecord):
    """_COMMIT.json: this video is complete, and this is what it consists of."""

    key: str
    space: str
    """Hash of the space."""
    store: StoreKind
    num_rows: Annotated[int, Field(ge=1)]
    num_valid: Count
    first_pts_s: float
    last_pts_s: float
    source: SourceFacts
    streams: tuple[StreamRecord, ...]
    files: tuple[FileRecord, ...]
    """Every file of the folder but the record itself, sorted by path."""
    attempt: Count
    host: Text
    created: datetime
    versions: dict[str, str]
    timings_s: dict[str, float]

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)

    def stream(self, name: str) -> StreamRecord:
        for stream in self.streams:
            if stream.name == name:
                return stream
        names = ", ".join(stream.name for stream in self.streams)
        raise CacheMissingError(f"video {self.key!r} has no stream {name!r}; it has {names}")


PASSING = "io"
"""The kind of failures that lie in the way to a file and not in it: the next run tries such a video again by itself."""


class ErrorRecord(Record):
    """One line of errors.jsonl: an attempt at a video that failed."""

    key: Text
    kind: str
    """open, decode, truncated, timeout, crash, nonfinite, oom, io..."""
    message: Text
    frames_decoded: int | None = None
    frames_expected: int | None = None
    source_size: int | None = None
    """Size of the file that failed; with another size or time it is worth another attempt."""
    source_mtime_ns: int | None = None
    attempt: Count = 1
    created: datetime

    @classmethod
    def from_line(cls, line: str) -> Self | None:
        """None for a line that was torn by a kill or a full disk: the log is a help, not a truth."""
        try:
            return cls.model_validate_json(line)
        except ValidationError:
            return None


RecordT = TypeVar("RecordT", bound=Record)


def parse_record(model: type[RecordT], text: bytes, where: Path) -> RecordT:
    """Check a record; `where` is only for the message."""
    if not fits_digest(text):
        raise CacheCorruptError(
            f"{where} is not as it was written: its digest does not fit its {len(text)} bytes\n{_repair_hint(model)}"
        )
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise _explain(model, text, where, error) from error


def read_record(model: type[RecordT], path: Path) -> RecordT:
    """Read and check one record file; FileNotFoundError is the caller's to interpret."""
    try:
        return parse_record(model, read_record_bytes(path, follow_links=False), path)
    except NotARecordError as error:
        raise _no_file(model, path, str(error.strerror)) from error


def _no_file(model: type[Record], path: Path, reason: str) -> CacheCorruptError:
    return CacheCorruptError(f"{path} is no file of its own, as records are: {reason}\n{_repair_hint(model)}")


def is_same_source(fingerprint: SourceFingerprint, other: SourceFingerprint) -> bool:
    """Whether two fingerprints mean the same bytes; a copied file keeps its edges and loses its time."""
    return fingerprint.size == other.size and (
        fingerprint.mtime_ns == other.mtime_ns or fingerprint.edge_hash == other.edge_hash
    )


def check_space_hash(record: SpaceRecord, where: Path) -> None:
    """A space.json that was edited by hand no longer has the meaning that its name and its videos claim."""
    if (actual := space_hash(record.hashed)) != record.hash:
        raise CacheCorruptError(
            f"{where}: the description does not fit its hash (got {actual[:12]}, expected {record.hash[:12]})\n"
            f"{_repair_hint(SpaceRecord)}"
        )


def _repair_hint(model: type[Record]) -> str:
    """A video can be found damaged and made again; nothing but a copy tells what a space or a cache was."""
    if model is SpaceRecord:
        return "restore the file from a copy, or move the folder of the space away and extract again"
    if model is CacheRecord:
        return (
            "restore the file from a copy (that of any cache of this format will do), then run: qle cache verify --deep"
        )
    return "run: qle cache verify"


def _explain(model: type[Record], text: bytes, where: Path, error: ValidationError) -> Exception:
    try:
        content = parse_json(text)
    except ValueError:
        return CacheCorruptError(f"{where} is no JSON ({len(text)} bytes)\n{_repair_hint(model)}")
    version = content.get("format") if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT:
        return CacheMismatchError(
            f"{where} has cache format {version}, this qle reads format {FORMAT}; install a newer qle to read it"
        )
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return CacheCorruptError(f"{where} is no {model.__name__}: {field}: {first['msg']}\n{_repair_hint(model)}")
