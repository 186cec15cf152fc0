"""One process for each device, over one list of work.

The processes share nothing but the cache: each loads its backbones, plans for itself and takes videos by claims, exactly as
another machine would. So a process that dies costs the videos that it held, and those only until another one takes them.
"""

from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from qle.children import Child, start_child
from qle.errors import QleError
from qle.extract.device import OnExtracting, run_device
from qle.extract.progress import Progress
from qle.extract.request import ExtractRequest
from qle.runtime import interrupt_on_sigterm
from qle.types import VideoSource

MAX_DEATHS = 3
"""Replacements for one device before the run gives up: what kills a process so often will kill the next one too."""


class DeviceProcesses:
    """Starts them, adds up what they report, replaces those that die."""

    def __init__(self, request: ExtractRequest, sources: Sequence[VideoSource], on_progress: OnExtracting) -> None:
        self._request = request
        self._sources = sources
        self._on_progress = on_progress
        self._running: dict[Connection, tuple[Child, str]] = {}
        self._latest: dict[Connection, Progress] = {}
        self._deaths = 0

    def run(self) -> tuple[list[Path], Progress]:
        """The folders of the spaces and the sum of all progress, when every device has come to the end of the list."""
        folders: list[Path] = []
        try:
            for device in self._request.devices:
                self._start(device)
            while self._running:
                ready = wait(list(self._running))
                for pipe in [pipe for pipe in self._running if pipe in ready]:
                    folders = self._receive(pipe) or folders
        finally:
            for child, _ in self._running.values():
                child.process.terminate()
            for child, _ in self._running.values():
                child.wait()
        return folders, Progress.combined(self._latest.values())

    @property
    def pids(self) -> list[int]:
        return [child.process.pid for child, _ in self._running.values()]

    def _start(self, device: str) -> None:
        child = start_child(f"{__name__}:serve", {})
        self._running[child.pipe] = (child, device)
        self._latest[child.pipe] = Progress()
        try:
            child.pipe.send((self._request, self._sources, device))
        except OSError:
            return  # it is dead already, as the end of its pipe will say

    def _receive(self, pipe: Connection) -> list[Path] | None:
        """Handles one message; the list of folders is the last one of a process that ended well."""
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            self._replace(pipe)
            return None
        if isinstance(message, Progress):
            self._latest[pipe] = message
            self._on_progress(Progress.combined(self._latest.values()))
            return None
        child, _ = self._running.pop(pipe)
        child.wait()
        if isinstance(message, QleError):
            raise message
        folders: list[Path] = message
        return folders

    def _replace(self, pipe: Connection) -> None:
        child, device = self._running.pop(pipe)
        code = child.wait()
        self._deaths += 1
        how = f"the process of {device} died (exit code {code})"
        if self._deaths > MAX_DEATHS * len(self._request.devices):
            raise QleError(
                f"{how}, as {self._deaths - 1} did before it: giving up.\nFinished videos are safe; see qle doctor."
            )
        self._latest[pipe].notes.append(f"{how}: started again")
        self._start(device)


def serve(pipe: Connection) -> None:
    """The life of one device's process: sends Progress as it goes, then the folders of the spaces, or the error that ended
    the run."""
    request, sources, device = pipe.recv()
    interrupt_on_sigterm()
    try:
        folders, progress = run_device(request, sources, device, pipe.send)
        pipe.send(progress)
        pipe.send(folders)
    except QleError as error:
        pipe.send(error)
    except KeyboardInterrupt:
        pass  # by the parent, which says so; claims are given back and whole shards kept
    except BrokenPipeError:
        pass  # nobody is left to report to
