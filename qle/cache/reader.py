"""Open a cache and read tokens: `qle.open_cache(path).space().video("a.mp4").patch[0:16]`.

    Cache   a folder with qle-cache.json    -> its spaces
    Space   one meaning of numbers          -> its videos, and many windows of many videos into one buffer
    Video   one committed video             -> streams, times, times to rows

Everything here only reads, needs no write permission, and can be pickled into loader workers: objects carry paths and
records, files are mapped where and when rows are first read. Opening a video checks the size of every file against its
record, so that a shard which is missing or short is an error and never a block of zeros.
"""

import difflib
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np

from qle.cache import packs
from qle.cache.integrity import check_sizes
from qle.cache.layout import COMMIT_FILE, SPACE_FILE, STORE_SUFFIXES, VIDEOS, key_from_name
from qle.cache.records import CacheRecord, CommitRecord, SpaceRecord, read_record
from qle.cache.spaces import SpaceFolder, open_space, read_cache_record, read_commit
from qle.cache.windows import MapPool, StoredRows, VideoFolder
from qle.errors import CacheError, CacheMissingError
from qle.types import Stream

OPEN_VIDEOS = 4096
"""Videos whose records a space keeps at hand."""


class Rows:
    """One stream as an array on disk: index it, take its length, or turn it into a numpy array."""

    def __init__(self, stored: StoredRows) -> None:
        self._stored = stored
        self.shape, self.dtype = stored.shape, stored.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        """A new array: a row, a slice with any step, or the rows of a list of numbers (negative ones count from the end)."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self._stored.read(start, max(start, stop))
            return self._gather(np.arange(start, stop, step))
        if isinstance(index, int | np.integer):
            row: np.ndarray = self._gather(np.array([index]))[0]
            return row
        chosen = np.asarray(index)
        if chosen.dtype == bool and chosen.shape == (len(self),):
            return self._gather(np.flatnonzero(chosen))
        if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
            raise IndexError(
                f"rows are chosen by whole numbers, or by {len(self)} booleans; got {chosen.dtype} {chosen.shape}"
            )
        return self._gather(chosen.astype(np.int64))

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows on disk cannot become an array without a copy")
        whole = self._stored.read(0, len(self))
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"Rows({self._stored.stream.name}, shape={self.shape}, dtype={self.dtype})"

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        if len(rows) and not (-len(self) <= rows.min() and rows.max() < len(self)):
            raise IndexError(f"rows {rows.min()}..{rows.max()} of {len(self)}")
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for position, row in enumerate(np.where(rows < 0, rows + len(self), rows).tolist()):
            self._stored.read(row, row + 1, out[position : position + 1])
        return out


class Video:
    """One committed video. Made by `Space.video`."""

    def __init__(self, folder: VideoFolder, record: CommitRecord, pool: MapPool) -> None:
        self.record = record
        self._folder, self._pool = folder, pool
        self._stored: dict[str, StoredRows] = {}
        self._times: dict[str, np.ndarray] = {}

    @property
    def key(self) -> str:
        return self.record.key

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self._folder.path

    @property
    def num_rows(self) -> int:
        return self.record.num_rows

    @property
    def streams(self) -> dict[str, Stream]:
        """Every stored array by name, times included."""
        return {stream.name: stream.stream for stream in self.record.streams}

    @property
    def patch(self) -> Rows:
        """(rows, grid rows, grid cols, dim)"""
        return self.rows_of("patch")

    @property
    def frame(self) -> Rows:
        """(rows, dim)"""
        return self.rows_of("frame")

    @property
    def clip(self) -> Rows:
        """(rows, dim)"""
        return self.rows_of("clip")

    @property
    def pts(self) -> np.ndarray:
        """(rows,) float64: when each row is shown, in seconds of the container's clock."""
        return self._time("pts")

    @property
    def index(self) -> np.ndarray:
        """(rows,) int64: number of the row's frame in display order."""
        return self._time("index")

    @property
    def valid(self) -> np.ndarray:
        """(rows,) bool: whether that frame was on screen at the row's time."""
        return self._time("valid")

    def rows_of(self, stream: str) -> Rows:
        """A stream by name."""
        return Rows(self.stored(stream))

    def rows(self, start_s: float, end_s: float) -> slice:
        """The rows that are shown from `start_s` on and before `end_s`."""
        first, last = np.searchsorted(self.pts, [start_s, end_s], side="left").tolist()
        return slice(first, max(first, last))

    def read(
        self, stream: str, start: int, stop: int, out: np.ndarray | None = None, *, raw: bool = False
    ) -> np.ndarray:
        """Rows start..stop-1, into `out` where given. raw: bfloat16 as uint16, int8 without its scale."""
        return self.stored(stream).read(start, stop, out, raw=raw)

    def stored(self, stream: str) -> StoredRows:
        rows = self._stored.get(stream)
        if rows is None:
            rows = self._stored[stream] = StoredRows(self._folder, self.record, stream, self._pool)
        return rows

    def __reduce__(self) -> tuple[type["Video"], tuple[VideoFolder, CommitRecord, MapPool]]:
        return Video, (self._folder, self.record, self._pool)

    def __repr__(self) -> str:
        return f"Video({self.key!r}, {self.num_rows} rows, {', '.join(self.streams)})"

    def _time(self, name: str) -> np.ndarray:
        if name not in self._times:
            values = self.read(name, 0, self.num_rows)
            values.flags.writeable = False  # shared by everyone who asks
            self._times[name] = values
        return self._times[name]


class Space:
    """One space of a cache: a read-only mapping from keys to videos. Made by `Cache.space`."""

    def __init__(self, folder: SpaceFolder, pool: MapPool | None = None) -> None:
        self._folder = folder
        self._pool = MapPool() if pool is None else pool
        self._open: OrderedDict[str, Video] = OrderedDict()
        self._keys: tuple[str, ...] | None = None

    @property
    def path(self) -> Path:
        return self._folder.path

    @property
    def record(self) -> SpaceRecord:
        return self._folder.record

    @property
    def streams(self) -> dict[str, Stream]:
        """Every array that a video of this space has, by name."""
        return {stream.name: stream for stream in self._folder.streams}

    def keys(self) -> tuple[str, ...]:
        """Keys of the committed videos, sorted; listed once, see `refresh`."""
        if self._keys is None:
            self._keys = tuple(sorted({key for key, _ in list_videos(self.path)} | packs.keys(self.path)))
        return self._keys

    def refresh(self) -> None:
        """Forget what was listed and opened: videos may have come since."""
        self._keys = None
        self._open.clear()
        self._pool.clear()  # a folder may have got the inode of one that is gone

    def __len__(self) -> int:
        return len(self.keys())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        return key in self._open or self._folder.folder(key) is not None or packs.find(self.path, key) is not None

    def video(self, key: str) -> Video:
        """A video by its key, or by a part that only one key has: the key without suffix, the file name, its stem."""
        video = self._open.get(key)
        if video is not None:
            with suppress(KeyError):  # another thread may have closed it just now; here it stays good
                self._open.move_to_end(key)
            return video
        located = self._find(key)
        if located is None:
            if key in self.keys():
                raise CacheMissingError(f"video {key!r} of {self.path} was removed after its videos were listed")
            return self.video(self._resolve(key))
        folder, record = located
        while len(self._open) >= OPEN_VIDEOS:
            self._open.popitem(last=False)
        opened = self._open[key] = Video(folder, record, self._pool)
        return opened

    def read_windows(
        self, stream: str, windows: Sequence[tuple[str, int, int]], out: np.ndarray | None = None
    ) -> np.ndarray:
        """Rows of many videos, (key, start, stop) each and all of one length, as (windows, length, *row shape)."""
        length = windows[0][2] - windows[0][1] if windows else 0
        stored = [self.video(key).stored(stream) for key, _, _ in windows]
        if out is None:
            row_shape = self.streams[stream].row_shape if stream in self.streams else ()
            dtype = stored[0].dtype if stored else np.dtype(np.float32)
            out = np.empty((len(windows), length, *row_shape), dtype)
        elif len(out) != len(windows):
            raise CacheError(f"buffer for {len(windows)} windows has room for {len(out)}")
        for number, (rows, (key, start, stop)) in enumerate(zip(stored, windows, strict=True)):
            if stop - start != length:
                raise CacheError(f"window {start}..{stop} of {key!r} has {stop - start} rows, the first one {length}")
            rows.read(start, stop, out[number])
        return out

    def prefetch(self, stream: str, windows: Sequence[tuple[str, int, int]]) -> None:
        """Let the kernel read the windows of the next batch while this one is worked on."""
        for key, start, stop in windows:
            self.video(key).stored(stream).prefetch(start, stop)

    def __reduce__(self) -> tuple[type["Space"], tuple[SpaceFolder, MapPool]]:
        return Space, (self._folder, self._pool)

    def __repr__(self) -> str:
        return f"Space({self.path.name!r}, streams: {', '.join(self.streams)})"

    def _find(self, key: str) -> tuple[VideoFolder, CommitRecord] | None:
        """Where a video's files are, all of their size, and its record; None where it is not committed.

        Whoever replaces, converts or packs the video meanwhile takes the folder away from under us: then we look again.
        """
        while path := self._folder.folder(key):
            try:
                folder = VideoFolder.at(path)  # before the record is read, so that a replacement in between is noticed
            except FileNotFoundError:
                continue
            try:
                record = read_commit(path, key, self.record)
                check_sizes(path, record)
            except CacheError:
                if folder.is_there:
                    raise
                continue
            return folder, record
        packed = packs.find(self.path, key)
        if packed is None:
            return None
        check_sizes(*packed)
        return VideoFolder.at(packed[0]), packed[1]

    def _resolve(self, name: str) -> str:
        """The one key that a part of it names."""
        shorter = (lambda key: key.name, lambda key: str(key.with_suffix("")), lambda key: key.stem)
        for shorten in shorter:
            matches = [key for key in self.keys() if shorten(PurePosixPath(key)) == name]
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise CacheMissingError(
                    f"{name!r} names {len(matches)} videos of {self.path.name}: {_few(matches)}; give the whole key"
                )
        begin = [key for key in self.keys() if name and PurePosixPath(key).name.startswith(name)]
        near = begin or difflib.get_close_matches(name, self.keys(), n=3, cutoff=0.5)
        hint = f"; nearest: {_few(near)}" if near else ""
        raise CacheMissingError(f"no video {name!r} among the {len(self)} in {self.path}{hint}")


class Cache:
    """A folder of spaces. Made by `open_cache`."""

    def __init__(self, path: Path, record: CacheRecord) -> None:
        self.path, self.record = path, record

    @property
    def spaces(self) -> tuple[str, ...]:
        """Names of the folders of its spaces, sorted."""
        return space_names(self.path)

    def space(self, name: str | None = None) -> Space:
        """A space by its folder name, its readable name, or any unique beginning; without a name, the only one."""
        matches = [known for known in self.spaces if known.startswith(name or "")]
        # A derived space is named after the one it comes from, so a whole name goes before a beginning.
        whole = [known for known in matches if name in (known, known.rpartition("-")[0])]
        matches = [known for known in matches if known == name] or whole or matches
        if len(matches) == 1:
            return Space(open_space(self.path / matches[0]))
        if not self.spaces:
            raise CacheMissingError(f"{self.path} has no space yet; make one with: qle extract --cache {self.path} ...")
        what = f"no space begins with {name!r}" if not matches else "several spaces fit"
        choices = ", ".join(matches or self.spaces)
        raise CacheMissingError(
            f"{self.path}: {what}; choose one of {choices}\nby --space, or --stream where the command has it"
        )

    def __repr__(self) -> str:
        return f"Cache({str(self.path)!r}, spaces: {', '.join(self.spaces) or 'none'})"


def open_cache(path: str | Path) -> Cache:
    """Open a cache for reading."""
    root = Path(path)
    return Cache(root, read_cache_record(root))


def space_names(root: Path) -> tuple[str, ...]:
    """Folders of a cache that are spaces, readable or not."""
    with os.scandir(root) as entries:
        names = [entry.name for entry in entries if os.path.exists(os.path.join(entry.path, SPACE_FILE))]
    return tuple(sorted(name for name in names if not name.startswith(".")))  # hidden: a space that is being deleted


def list_videos(space: Path) -> Iterator[tuple[str, Path]]:
    """Key and folder of every committed video that is in no pack, in no order.

    A folder under videos/ has its record, so none is read here but those of folders whose name does not tell the key.
    """
    suffixes = tuple(STORE_SUFFIXES.values())
    for shelf in _folders(space / VIDEOS):
        for entry in _folders(Path(shelf.path)):
            stem, suffix = os.path.splitext(entry.name)
            if suffix not in suffixes:
                continue
            key = key_from_name(stem)
            if key is None:
                try:
                    key = read_record(CommitRecord, Path(entry.path, COMMIT_FILE)).key
                except (CacheError, OSError):  # one damaged video is no reason to hide the others; `verify` names it
                    continue
            yield key, Path(entry.path)


def _folders(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _few(keys: Sequence[str]) -> str:
    return ", ".join(repr(key) for key in keys[:5]) + (", ..." if len(keys) > 5 else "")
