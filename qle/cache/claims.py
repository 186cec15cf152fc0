"""Who is working on which video: hints that keep several workers of one list apart. The rename at commit decides.

A claim is a small file under <space>/claims/ that its owner touches every few seconds (filelock.SoftFileLease, made for
network file systems). Whoever else wants the video looks again now and then: a dead owner on the same machine is
recognised at once, any other owner that has not touched its claim for LEASE_S on the *watcher's* clock loses it. So a
look that takes no time can still take over, because what was seen is remembered from look to look.
"""

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


class Claims:
    """The claims that one process holds or watches in one space."""

    def __init__(self, space: SpaceFolder, lease_s: float = LEASE_S) -> None:
        self._folder = space.path / CLAIMS
        self._lease_s = lease_s
        self._held: dict[str, SoftFileLease] = {}
        self._watched: dict[str, SoftFileLease] = {}

    def try_acquire(self, key: str) -> bool:
        """Take the claim of a video if it is free now; never waits. Call again later to outlast a dead owner."""
        if key in self._held:
            return True
        lease = self._watched.pop(key, None) or self._lease(key)
        try:
            lease.acquire(blocking=False)
        except Timeout:
            self._watched[key] = lease  # it remembers since when the owner has been silent
            return False
        except (OSError, LeaseSettingsMismatch) as error:
            raise CacheError(f"cannot claim video {key!r} in {self._folder}: {error}") from error
        self._held[key] = lease
        return True

    def release(self, key: str) -> None:
        """Give a claim back, from any thread; forget it where it was only watched."""
        self._watched.pop(key, None)
        if (lease := self._held.pop(key, None)) is not None:
            lease.release()

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
        path: Path = self._folder / f"{key_hash(key)[:32]}.lease"
        # thread_local=False: the thread that writes a video to its end is not the one that claimed it.
        return SoftFileLease(path, lease_duration=self._lease_s, thread_local=False)


def release_abandoned(space: Path) -> None:
    """Remove the claims whose owners are known to have ended, by taking each and giving it back; living owners keep theirs."""
    if (space / CLAIMS).is_symlink():  # leases that are not of this space
        return
    for path in (space / CLAIMS).glob("*.lease"):
        lease = SoftFileLease(path, lease_duration=LEASE_S, thread_local=False)
        with suppress(OSError, Timeout, LeaseSettingsMismatch):
            lease.acquire(blocking=False)
            lease.release()


@contextmanager
def whole_space(space: SpaceFolder) -> Iterator[None]:
    """A space for one conversion or packing alone; an error where another one is at work there."""
    with Claims(space) as claims:
        if not claims.try_acquire(WHOLE_SPACE):
            raise CacheError(
                f"{space.path} is just being converted or packed; wait for the end, then run the same command again"
            )
        yield
