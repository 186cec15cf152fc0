"""A bounded queue between two threads that can be finished (let the rest through) or cancelled (let go at once).

`queue.Queue` has neither on Python 3.11, and a thread that waits for ever in `put` is how pipelines hang when a later
stage has died.
"""

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class CancelledError(RuntimeError):
    """The pipeline is being taken down; whoever waited on it should return."""


class Mailbox(Generic[Item]):
    """First in, first out; `put` waits while it is full, `get` while it is empty."""

    def __init__(self, capacity: int) -> None:
        self._items: deque[Item] = deque()
        self._capacity = capacity
        self._changed = threading.Condition()
        self._is_finished = False
        self._is_cancelled = False

    def put(self, item: Item) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._capacity or self._is_cancelled)
            self._raise_if_cancelled()
            self._items.append(item)
            self._changed.notify_all()

    def get(self) -> Item | None:
        """None once the box is finished and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_finished or self._is_cancelled)
            self._raise_if_cancelled()
            item = self._items.popleft() if self._items else None
            self._changed.notify_all()
            return item

    def finish(self) -> None:
        """Nothing more will be put."""
        with self._changed:
            self._is_finished = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Everyone who waits, now or later, gets CancelledError."""
        with self._changed:
            self._is_cancelled = True
            self._items.clear()
            self._changed.notify_all()

    def _raise_if_cancelled(self) -> None:
        if self._is_cancelled:
            raise CancelledError
