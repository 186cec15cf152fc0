"""Made-up videos by several processes: each draws and encodes one film after another, and none outlives the command.

    scripts --FilmMakers--> the same function in children, one script at a time each --> what it returned, in any order

A disk that is full, or any other error that the function raises on purpose, ends all of them with that one error.
"""

import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

from qle.children import Child, start_child
from qle.errors import QleError

Task = TypeVar("Task")
Result = TypeVar("Result")


class ProcessPool(Generic[Task, Result]):
    """Applies a function of a module to many tasks, in `num_processes` children of its own."""

    def __init__(self, function: Callable[[Task], Result], num_processes: int) -> None:
        self._idle = [start_child(f"{__name__}:serve", {}) for _ in range(num_processes)]
        self._busy: dict[Connection, tuple[Child, Task]] = {}
        for child in self._idle:
            child.pipe.send(function)

    @property
    def unfinished(self) -> list[Task]:
        """Tasks that a child is at, or was at when it was ended."""
        return [task for _, task in self._busy.values()]

    def map(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """What the function returns for each task, whichever comes first. Raises what it raised; then all is over."""
        waiting = deque(tasks)
        while waiting or self._busy:
            while waiting and self._idle:
                child = self._idle.pop()
                self._busy[child.pipe] = child, waiting[0]
                try:
                    child.pipe.send(waiting.popleft())
                except OSError:  # it is dead, as the end of its pipe will say
                    continue
            for pipe in wait(list(self._busy)):
                assert isinstance(pipe, Connection)
                yield self._receive(pipe)

    def close(self) -> None:
        """Ends every child at once, in whatever it is."""
        for child in [*self._idle, *(child for child, _ in self._busy.values())]:
            child.kill()
        self._idle.clear()

    def _receive(self, pipe: Connection) -> Result:
        try:
            is_done, answer = pipe.recv()
        except (EOFError, OSError):
            raise self._death(pipe) from None
        if not is_done:
            raise answer
        self._idle.append(self._busy.pop(pipe)[0])
        result: Result = answer
        return result

    def _death(self, pipe: Connection) -> QleError:
        child, _ = self._busy[pipe]
        code = child.process.wait()
        how = f"signal {signal.Signals(-code).name}, often for memory" if code < 0 else f"exit code {code}"
        return QleError(
            f"a process that makes videos ended unexpectedly ({how})\n"
            "run the same command again: what is finished is kept"
        )


def serve(pipe: Connection) -> None:
    """The life of a child: a function, then tasks for it, until the pipe closes."""
    try:
        function = pipe.recv()
        while True:
            pipe.send(_answer(function, pipe.recv()))
    except (EOFError, ConnectionError):
        return


def _answer(function: Callable[[Task], Result], task: Task) -> tuple[bool, object]:
    """(True, result), or (False, an error that can be sent: those of the libraries often cannot)."""
    try:
        return True, function(task)
    except QleError as error:
        return False, error
    except OSError as error:
        return False, OSError(error.errno, error.strerror, error.filename)
    except Exception:  # noqa: BLE001 - a bug, told by the parent
        return False, RuntimeError(f"in a process that makes videos:\n{traceback.format_exc()}")
