"""Which video is next, when several processes and machines walk the same list over a shared folder.

Claims are hints that keep two workers from the same video; the rename at commit decides. So nothing here has to be exact:
a claim that nobody refreshes is taken over, and work done twice is thrown away by whoever comes second.
"""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from qle.cache.claims import LEASE_S, Claims
from qle.cache.records import ErrorRecord
from qle.errors import CacheError
from qle.extract.target import Target
from qle.types import VideoSource

PATIENCE_S = 2 * LEASE_S
"""How long the end of the list is watched for claims that die. A claim that outlives this has a live owner."""
RETRY_S = 1.0
"""Between two looks at the same contested video."""


@dataclass(frozen=True, slots=True)
class Pending:
    """One video and the backbones in whose spaces it is missing."""

    source: VideoSource
    targets: tuple[Target, ...]
    is_replacing: bool
    """Whether a stale or damaged version stands there now."""


class WorkList:
    """Hands out videos that are claimed for this process."""

    def __init__(self, pending: Iterable[Pending], targets: Sequence[Target]) -> None:
        self._fresh = deque(pending)
        self._contested: deque[Pending] = deque()
        self._looked_at: set[Pending] = set()
        self._started = datetime.now(UTC)
        self._next_look_s = 0.0
        self._deadline_s: float | None = None
        self._known_failures: dict[Target, tuple[int, dict[str, ErrorRecord]]] = {}
        """Target -> size of its log when it was read, and what stood there."""
        self._claims = {target: Claims(target.folder) for target in targets}

    @property
    def num_fresh(self) -> int:
        """Videos that were not looked at yet."""
        return len(self._fresh)

    @property
    def num_contested(self) -> int:
        """Videos that another process is working on."""
        return len(self._contested)

    @property
    def is_finished(self) -> bool:
        """Nothing fresh, and what is contested has an owner that is alive."""
        if self._fresh:
            return False
        return not self._contested or (self._deadline_s is not None and time.monotonic() > self._deadline_s)

    def take(self) -> Pending | None:
        """The next video that could be claimed, with the targets that were; None when there is none just now."""
        while self._fresh:
            pending = self._fresh.popleft()
            if (claimed := self._claim(pending)) is not None:
                return claimed
        now_s = time.monotonic()
        if self._contested and self._deadline_s is None:
            self._deadline_s = now_s + PATIENCE_S
        if now_s < self._next_look_s:
            return None
        self._next_look_s = now_s + RETRY_S
        for _ in range(len(self._contested)):
            if (claimed := self._claim(self._contested.popleft())) is not None:
                return claimed
        return None

    def _claim(self, pending: Pending) -> Pending | None:
        """Those targets that are still missing and free; the ones in other hands go to the contested."""
        free: list[Target] = []
        taken: list[Target] = []
        for target in pending.targets:
            if self._is_settled(target, pending):
                continue
            (free if self._claims[target].try_acquire(pending.source.key) else taken).append(target)
        if taken:
            self._contested.append(Pending(pending.source, tuple(taken), pending.is_replacing))
        for target in [target for target in free if self._is_settled(target, pending)]:
            free.remove(target)  # its former owner came to an end between the look and the claim
            self.release(target, pending.source.key)
        return Pending(pending.source, tuple(free), pending.is_replacing) if free else None

    def _is_settled(self, target: Target, pending: Pending) -> bool:
        """Whether someone has committed it, or failed at it, since this list was made."""
        try:
            record = target.folder.committed(pending.source.key)
        except CacheError:
            record = None  # the plan has called it damaged, or will next time; this run replaces it
        if record is not None and (not pending.is_replacing or record.created >= self._started):
            return True
        if pending not in self._looked_at:
            self._looked_at.add(pending)
            return False  # fresh: the plan has just read the error log
        failure = self._failures(target).get(pending.source.key)
        return failure is not None and failure.created >= self._started

    def _failures(self, target: Target) -> dict[str, ErrorRecord]:
        """The last failure of each key; read again only when the log has grown, since every video asks."""
        log = target.folder.errors
        size = log.path.stat().st_size if log.path.exists() else 0
        known_size, failures = self._known_failures.get(target, (0, {}))
        if size != known_size:
            failures = log.latest()
            self._known_failures[target] = size, failures
        return failures

    def release(self, target: Target, key: str) -> None:
        """Gives a claim back, whatever became of the video."""
        self._claims[target].release(key)

    def close(self) -> None:
        """Gives back all claims that are still held."""
        for claims in self._claims.values():
            claims.close()
