"""Arrays for batches that are used again, and a thread that makes batches ahead of their consumer. No torch.

A batch of patch tokens has tens of megabytes. Fresh memory of that size costs the kernel as much time as filling it, so
buffers go round; one is free again when nobody looks into it any more, not even a view that autograd keeps.
"""

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from queue import SimpleQueue
from typing import Generic, TypeVar

import numpy as np

Item = TypeVar("Item")


class Buffers:
    """Sets of arrays of the same shapes. `take` gives a free set, or a new one."""

    def __init__(self, shapes: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> None:
        self._shapes = dict(shapes)
        self._sets: list[dict[str, np.ndarray]] = []
        self._lent: list[list[weakref.ref[np.ndarray]]] = []

    def __len__(self) -> int:
        return len(self._sets)

    def add(self, arrays: dict[str, np.ndarray]) -> int:
        """Let these arrays go round as well; the number of the set."""
        self._sets.append(arrays)
        self._lent.append([])
        return len(self._sets) - 1

    def free(self) -> list[int]:
        """Numbers of the sets that nobody looks into."""
        return [number for number, lent in enumerate(self._lent) if all(view() is None for view in lent)]

    def lend(self, number: int) -> dict[str, np.ndarray]:
        """Views of a set: it is taken for as long as one of them, or anything made from one without a copy, lives."""
        views = {name: array[:] for name, array in self._sets[number].items()}
        self._lent[number] = [weakref.ref(view) for view in views.values()]
        return views

    def take(self) -> dict[str, np.ndarray]:
        free = self.free()
        if free:
            return self.lend(free[0])
        return self.lend(self.add({name: np.empty(shape, dtype) for name, (shape, dtype) in self._shapes.items()}))


class Ahead(Generic[Item]):
    """An iterator whose items a thread makes ahead of time, `depth` at most. What fails there is raised here."""

    def __init__(self, make: Callable[[], Iterator[Item]], depth: int) -> None:
        self._room = threading.Semaphore(depth)
        self._made: SimpleQueue[tuple[Item | None, BaseException | None]] = SimpleQueue()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._work, args=(make,), name="qle-batches", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        item, error = self._made.get()
        if error is not None:
            self._made.put((None, error))  # whoever asks again gets the same answer
            raise error
        self._room.release()
        return item  # type: ignore[return-value]

    def close(self) -> None:
        """End the thread; what it is just making is thrown away."""
        self._is_stopped = True
        self._room.release()
        self._thread.join()

    def _work(self, make: Callable[[], Iterator[Item]]) -> None:
        items = None
        try:
            items = make()
            while True:
                self._room.acquire()
                if self._is_stopped:
                    raise StopIteration  # whoever still asks must not wait for ever
                self._made.put((next(items), None))
        except StopIteration:
            self._made.put((None, StopIteration()))
        except BaseException as error:  # noqa: BLE001 - it belongs to the consumer, who raises it
            self._made.put((None, error))
        finally:
            if items is not None and hasattr(items, "close"):
                items.close()
