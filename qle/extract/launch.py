"""One process for each device, over one list of work.

The processes share nothing but the cache: each loads its backbones, plans for itself and takes videos by claims, exactly as
another machine would. So a process that dies costs the videos that it held, and those only until another one takes them.
"""

import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

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
        self._context = multiprocessing.get_context("spawn")
        self._running: dict[Connection, tuple[BaseProcess, str]] = {}
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
                for connection in [connection for connection in self._running if connection in ready]:
                    folders = self._receive(connection) or folders
        finally:
            for process, _ in self._running.values():
                process.terminate()
            for process, _ in self._running.values():
                process.join()
        return folders, Progress.combined(self._latest.values())

    def _start(self, device: str) -> None:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_run_in_process, args=(theirs, self._request, self._sources, device))
        process.start()
        theirs.close()
        self._running[ours] = (process, device)
        self._latest[ours] = Progress()

    def _receive(self, connection: Connection) -> list[Path] | None:
        """Handles one message; the list of folders is the last one of a process that ended well."""
        try:
            message = connection.recv()
        except EOFError:
            self._replace(connection)
            return None
        if isinstance(message, Progress):
            self._latest[connection] = message
            self._on_progress(Progress.combined(self._latest.values()))
            return None
        process, _ = self._running.pop(connection)
        process.join()
        if isinstance(message, QleError):
            raise message
        folders: list[Path] = message
        return folders

    def _replace(self, connection: Connection) -> None:
        process, device = self._running.pop(connection)
        process.join()
        self._deaths += 1
        how = f"the process of {device} died (exit code {process.exitcode})"
        if self._deaths > MAX_DEATHS * len(self._request.devices):
            raise QleError(
                f"{how}, as {self._deaths - 1} did before it: giving up.\nFinished videos are safe; see qle doctor."
            )
        self._latest[connection].notes.append(f"{how}: started again")
        self._start(device)


def _run_in_process(
    connection: Connection, request: ExtractRequest, sources: Sequence[VideoSource], device: str
) -> None:
    """Sends Progress as it goes, then the folders of the spaces, or the error that ended the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what ends
    interrupt_on_sigterm()
    try:
        folders, progress = run_device(request, sources, device, connection.send)
        connection.send(progress)
        connection.send(folders)
    except QleError as error:
        connection.send(error)
    except KeyboardInterrupt:
        pass  # by the parent, which says so; claims are given back and whole shards kept
    except BrokenPipeError:
        pass  # nobody is left to report to
