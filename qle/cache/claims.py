"""Who is working on which video: hints that keep several workers of one list apart. The rename at commit decides.

A claim is a small file under <space>/claims/ that its owner touches every few seconds (filelock.SoftFileLease, made for
network file systems). Whoever else wants the video looks again now and then: a dead owner on the same machine is
recognised at once, any other owner that has not touched its claim for LEASE_S on the *watcher's* clock loses it. So a
look that takes no time can still take over, because what was seen is remembered from look to look.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

from qle.cache.layout import CLAIMS, key_hash
from qle.cache.spaces import SpaceFolder
from qle.errors import CacheError

WHOLE_SPACE = "/convert"
"""Held while a space is converted or packed: two such in one place would take each other's folders away. No key of a video."""

LEASE_S = 30.0
"""Unrefreshed for so long, a claim is free. All workers of a space must agree on it."""
UNSIGNED_S = 2.0
"""An owner signs its claim right after it has made it. One that is empty for so long was left by an owner that was killed between
the two; filelock would keep it for ever, since its versions before 3.22 never signed."""


class Claims:
    """The claims that one process holds or watches in one space."""

    def __init__(self, space: SpaceFolder, lease_s: float = LEASE_S) -> None:
        self._folder = space.path / CLAIMS
        self._lease_s = lease_s
        self._held: dict[str, SoftFileLease] = {}
        self._watched: dict[str, SoftFileLease] = {}
        self._unsigned: dict[str, tuple[int, int, float]] = {}
        """Empty claims of others: inode, time of the file, and since when this process has seen them so."""

    def try_acquire(self, key: str) -> bool:
        """Take the claim of a video if it is free now; never waits. Call again later to outlast a dead owner."""
        if key in self._held:
            return True
        lease = self._watched.pop(key, None) or self._lease(key)
        try:
            lease.acquire(blocking=False)
        except Timeout:
            self._watched[key] = lease  # it remembers since when the owner has been silent
            return self._removed_unsigned(key) and self.try_acquire(key)
        except (OSError, LeaseSettingsMismatch) as error:
            raise CacheError(f"cannot claim video {key!r} in {self._folder}: {error}") from error
        self._held[key] = lease
        return True

    def release(self, key: str) -> None:
        """Give a claim back, from any thread; forget it where it was only watched."""
        self._watched.pop(key, None)
        if (lease := self._held.pop(key, None)) is not None:
            lease.release()

    def is_unsigned(self, key: str) -> bool:
        """Whether the claim that was there at the last look was empty, and may soon be free."""
        return key in self._unsigned

    def _removed_unsigned(self, key: str) -> bool:
        """Remove a claim that has been empty for UNSIGNED_S; whether there was one."""
        seen, now_s = self._unsigned.pop(key, None), time.monotonic()
        with suppress(OSError):
            status = os.lstat(self._path(key))
            if status.st_size:
                return False
            if seen is None or seen[:2] != (status.st_ino, status.st_mtime_ns):
                seen = (status.st_ino, status.st_mtime_ns, now_s)
            if now_s - seen[2] < UNSIGNED_S:
                self._unsigned[key] = seen
                return False
            self._path(key).unlink(missing_ok=True)
            return True
        return False

    def close(self) -> None:
        """Give back everything."""
        for key in list(self._held):
            self.release(key)
        self._watched.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lease(self, key: str) -> SoftFileLease:
        # thread_local=False: the thread that writes a video to its end is not the one that claimed it.
        return SoftFileLease(self._path(key), lease_duration=self._lease_s, thread_local=False)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key_hash(key)[:32]}.lease"


def release_abandoned(space: Path) -> None:
    """Remove the claims whose owners are known to have ended, by taking each and giving it back; living owners keep theirs."""
    if (space / CLAIMS).is_symlink():  # leases that are not of this space
        return
    for path in (space / CLAIMS).glob("*.lease.break.*"):  # of a killed process that was taking over a claim
        with suppress(OSError):
            if time.time() - os.lstat(path).st_ctime > UNSIGNED_S:
                path.unlink()
    for path in (space / CLAIMS).glob("*.lease"):
        lease = SoftFileLease(path, lease_duration=LEASE_S, thread_local=False)
        with suppress(OSError, Timeout, LeaseSettingsMismatch):
            status = os.lstat(path)
            if status.st_size == 0 and time.time() - status.st_mtime > LEASE_S:
                path.unlink()  # never signed
                continue
            lease.acquire(blocking=False)
            lease.release()


@contextmanager
def whole_space(space: SpaceFolder) -> Iterator[None]:
    """A space for one conversion or packing alone; an error where another one is at work there."""
    with Claims(space) as claims:
        while not claims.try_acquire(WHOLE_SPACE):
            if claims.is_unsigned(WHOLE_SPACE):
                time.sleep(0.1)
                continue
            raise CacheError(
                f"{space.path} is just being converted or packed; wait for the end, then run the same command again"
            )
        yield
