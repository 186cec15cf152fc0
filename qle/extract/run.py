"""`qle extract` from request to summary."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qle.cache.spaces import open_space
from qle.cache.states import count_states, states
from qle.extract.device import OnExtracting, run_device
from qle.extract.launch import DeviceProcesses
from qle.extract.plan import discover
from qle.extract.request import ExtractRequest
from qle.types import VideoSource


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSummary:
    """What the records of one space say about the videos that were asked for, after the run."""

    space: str
    states: dict[str, int]
    """done, failed, claimed, pending, stale, damaged -> number of videos."""
    failures: dict[str, str]
    """Key -> why."""
    faults: dict[str, str]
    """Committed videos that are partial or have damaged rows -> what is wrong with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractSummary:
    """The end of a run, counted from records and not from what the run believes."""

    cache: str
    spaces: list[SpaceSummary]
    num_videos: int
    rows_written: int
    seconds: float
    rows_per_s: float
    binding: str

    @property
    def exit_code(self) -> int:
        """0 when every video is committed in every space, else 4."""
        return 0 if all(space.states.get("done", 0) == self.num_videos for space in self.spaces) else 4

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"exit_code": self.exit_code}


def run(request: ExtractRequest, on_progress: OnExtracting) -> ExtractSummary:
    """Extracts what is missing; returns what the cache then holds of the videos that were asked for."""
    started_s = time.monotonic()
    sources = discover(request.inputs, request.root, request.limit)
    if len(request.devices) == 1:
        folders, progress = run_device(request, sources, request.devices[0], on_progress)
    else:
        folders, progress = DeviceProcesses(request, sources, on_progress).run()
    seconds = time.monotonic() - started_s
    return ExtractSummary(
        cache=str(request.cache),
        spaces=[_summarise(folder, sources) for folder in folders],
        num_videos=len(sources),
        rows_written=progress.rows_done,
        seconds=seconds,
        rows_per_s=progress.rows_done / seconds,
        binding=progress.binding,
    )


def _summarise(folder: Path, sources: Sequence[VideoSource]) -> SpaceSummary:
    video_states = states(open_space(folder), sources)
    return SpaceSummary(
        space=folder.name,
        states=count_states(video_states),
        failures={state.key: state.reason for state in video_states if state.state == "failed"},
        faults={state.key: state.reason for state in video_states if state.state == "done" and state.reason},
    )
