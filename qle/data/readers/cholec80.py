"""Cholec80: per-frame phases and tools of 80 operations -> intervals -> queries in words.

    ROOT/phase_annotations/videoNN-phase.txt   Frame <tab> Phase, a row for every frame, from 0
    ROOT/tool_annotations/videoNN-tool.txt     Frame <tab> Grasper ... SpecimenBag, 0 or 1, a row for every 25th frame

Frame k is shown at k / 25 s. A row of the tool file speaks for the 25 frames from its own on; where that file ends early, as
some do by a row, nothing is said about the rest, and the log tells of more than a second. Labels are exhaustive, so every
query of a video is annotated: one that does not happen has no windows. Wordings of one thing share a concept.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from qle.data.annotations import Annotation, Window
from qle.data.readers.concepts import CHOLEC80_PHASES, CHOLEC80_TOOLS, SurgicalConcept
from qle.data.readers.text_rows import read_text
from qle.data.readlog import BadRow, ReadLog
from qle.errors import AnnotationError, InputError
from qle.segments.spans import spans_of

FPS = 25
TOOL_STEP = 25
"""Frames from one row of a tool file to the next."""

Wording = Literal["published", "training", "held-out"]

_PHASE_NUMBERS = {concept.label: number for number, concept in enumerate(CHOLEC80_PHASES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One video: when each concept happens."""

    number: int
    duration_s: float
    windows: Mapping[SurgicalConcept, tuple[Window, ...]]

    @property
    def video(self) -> str:
        return f"video{self.number:02d}"

    def annotations(self, wording: Wording) -> list[Annotation]:
        """One for each concept and wording. training: the published texts and the paraphrases that training may see."""
        asked = []
        for concept, windows in self.windows.items():
            texts = {"published": concept.published, "training": concept.wordings, "held-out": (concept.held_out,)}
            for number, query in enumerate(texts[wording]):
                name = "held-out" if wording == "held-out" else str(number)
                asked.append(
                    Annotation(
                        qid=f"{self.video}/{concept.key}/{name}", video=self.video, query=query, windows=windows,
                        duration_s=self.duration_s, concept=concept.key,
                    )
                )  # fmt: skip
        return asked


def read(source: Path, log: ReadLog, *, wording: Wording = "published") -> list[Annotation]:
    return [annotation for operation in read_operations(source, log) for annotation in operation.annotations(wording)]


def read_operations(source: Path, log: ReadLog) -> list[Operation]:
    """Every video that has a phase file, by number."""
    phase_files = {
        int(match[1]): path
        for path in sorted(source.glob("phase_annotations/*"))
        if (match := re.fullmatch(r"video(\d+)-phase\.txt", path.name))
    }
    if not phase_files:
        raise InputError(f"{source} holds no phase_annotations/videoNN-phase.txt: name the folder of Cholec80")
    tools = source / "tool_annotations"
    if not tools.is_dir():
        log.note(f"{source} has no folder tool_annotations: phases only")
    operations, num_rows = [], 0
    for number, phase_file in sorted(phase_files.items()):
        phases = _read_rows(phase_file, ("Phase",), 1, log)
        tool_rows = None
        if tools.is_dir():
            names = tuple(concept.label for concept in CHOLEC80_TOOLS)
            tool_rows = _read_rows(tools / f"video{number:02d}-tool.txt", names, TOOL_STEP, log)
        num_rows += sum(len(rows) for rows in (phases, tool_rows) if rows is not None)
        if phases is None or (tools.is_dir() and tool_rows is None):
            log.note(f"video{number:02d} left out, because some of its labels are wrong")
        else:
            operations.append(_operation(number, phases, tool_rows, log))
    log.close(num_rows)
    if not operations:
        raise log.nothing_left(f"{source} holds no video whose labels can be used")
    return operations


def _operation(number: int, phases: np.ndarray, tools: np.ndarray | None, log: ReadLog) -> Operation:
    num_frames = len(phases)
    windows: dict[SurgicalConcept, tuple[Window, ...]] = {}
    if tools is not None:
        num_frames = max(num_frames, (len(tools) - 1) * TOOL_STEP + 1)
        if (silent_s := (num_frames - len(tools) * TOOL_STEP) / FPS) > 1:
            log.note(f"video{number:02d}: tools are labelled up to {silent_s:.0f} s before the end")
    edges_s = np.arange(len(phases) + 1) / FPS
    for phase, concept in enumerate(CHOLEC80_PHASES):
        windows[concept] = _windows(phases[:, 0] == phase, edges_s)
    if tools is not None:
        edges_s = np.minimum(np.arange(len(tools) + 1) * TOOL_STEP, num_frames) / FPS
        for tool, concept in enumerate(CHOLEC80_TOOLS):
            windows[concept] = _windows(tools[:, tool] == 1, edges_s)
    return Operation(number=number, duration_s=num_frames / FPS, windows=windows)


def _windows(is_happening: np.ndarray, edges_s: np.ndarray) -> tuple[Window, ...]:
    return tuple((float(start_s), float(end_s)) for start_s, end_s in spans_of(is_happening, edges_s))


def _read_rows(path: Path, names: Sequence[str], step: int, log: ReadLog) -> np.ndarray | None:
    """(rows, columns) int8: numbers of phases, or 0 and 1; None where rows are wrong, which the log then knows."""
    header, _, body = read_text(path).partition("\n")
    columns = header.split()
    if columns[:1] != ["Frame"] or sorted(columns[1:]) != sorted(names):
        raise AnnotationError(f"{path} line 1: expected columns Frame, {', '.join(names)}, got {header[:200]!r}")
    codes = _PHASE_NUMBERS if names == ("Phase",) else {"0": 0, "1": 1}
    cells = body.split()
    if not cells:
        raise AnnotationError(f"{path} holds no rows")
    # 4.6 million rows: all cells of a file at once. Only where something is wrong are its lines looked at, to name them.
    num_rows, surplus = divmod(len(cells), len(columns))
    frames = cells[:: len(columns)]
    del cells[:: len(columns)]
    if surplus or frames != [str(row * step) for row in range(num_rows)] or not codes.keys() >= set(cells):
        _tell(path, body, columns, codes, step, log)
        return None
    rows = np.array([codes[cell] for cell in cells], dtype=np.int8).reshape(num_rows, -1)
    return rows[:, [columns.index(name) - 1 for name in names]]


def _tell(path: Path, body: str, columns: Sequence[str], codes: Mapping[str, int], step: int, log: ReadLog) -> None:
    """Name the wrong rows of a file that has some."""
    frame = 0
    for line, text in enumerate(body.split("\n"), start=2):
        cells = text.split()
        if not cells:
            continue
        if len(cells) != len(columns) or cells[0] != str(frame):
            log.bad(path, line, _wrong_frame(cells, columns, frame))
            return  # every later row would be out of step too
        for column, cell in zip(columns[1:], cells[1:], strict=True):
            if cell not in codes:
                log.bad(path, line, BadRow(column, f"expected one of {', '.join(codes)}, got {cell!r}"))
        frame += step


def _wrong_frame(cells: Sequence[str], columns: Sequence[str], frame: int) -> BadRow:
    if len(cells) != len(columns):
        return BadRow("row", f"expected {len(columns)} cells, got {len(cells)}")
    return BadRow("Frame", f"expected {frame}, since no frame may be missing, got {cells[0]!r}")
