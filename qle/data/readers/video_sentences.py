"""Files that list the sentences of each video, `{video: {"timestamps": [[start, end], ...], "sentences": [...], ...}}`: the
form of ActivityNet Captions, of TACoS and of the further splits of Charades-STA.

Each dataset says what its times count and which faults its published files are known to have; walking, numbering (VIDEO_0,
VIDEO_1, ... as others number TACoS) and the place of every wrong row are the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qle.data.annotations import (
    Annotation,
    checked_list,
    checked_number,
    checked_object,
    checked_text,
    checked_video,
)
from qle.data.readers.json_items import object_items
from qle.data.readlog import BadRow, KnownFault, ReadLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One sentence of a video."""

    line: int
    """Where the video's entry begins."""
    video: str
    number: int
    """Number of the sentence in its video, from 0."""
    sentence: str
    start: float
    end: float
    entry: Mapping[str, Any]
    """All that the file says about the video."""

    @property
    def qid(self) -> str:
        return f"{self.video}_{self.number}"

    def number_of(self, key: str) -> float:
        """A number of the entry that must be above 0. Raises BadRow."""
        value = checked_number(key, self.entry.get(key))
        if value <= 0:
            raise BadRow(key, f"expected more than 0, got {value:g}")
        return value


def read_told(
    source: Path, log: ReadLog, annotation: Callable[[Told], Annotation], *, suffix: str = ""
) -> list[Annotation]:
    """All annotations of a file. `suffix`: what the file adds to the names of videos (".avi")."""
    annotations: list[Annotation] = []
    lines: dict[str, int] = {}
    num_rows = 0
    for line, name, entry in object_items(source):
        try:
            video = checked_video("video", name.removesuffix(suffix))
            if lines.setdefault(video, line) != line:
                raise BadRow("video", f"{video!r} stands in line {lines[video]} too")
            sentences = _sentences(entry)
        except BadRow as bad:
            num_rows += 1
            log.bad(source, line, _within(name, bad))
            continue
        for number, (sentence, window) in enumerate(sentences):
            num_rows += 1
            try:
                annotations.append(annotation(_told(line, video, number, sentence, window, entry)))
            except BadRow as bad:
                log.bad(source, line, _within(f"{name}[{number}]", bad))
    log.close(num_rows)
    if not annotations:
        raise log.nothing_left(f"{source} holds no sentence of a video that can be used")
    return annotations


def _sentences(entry: Any) -> list[tuple[Any, Any]]:
    entry = checked_object("entry", entry)
    sentences, windows = (checked_list(key, entry.get(key)) for key in ("sentences", "timestamps"))
    if len(sentences) != len(windows):
        raise BadRow("timestamps", f"{len(windows)} for {len(sentences)} sentences")
    return list(zip(sentences, windows, strict=True))


def _told(line: int, video: str, number: int, sentence: Any, window: Any, entry: Mapping[str, Any]) -> Told:
    if not isinstance(window, list) or len(window) != 2:
        raise BadRow("timestamps", f"expected [start, end], got {repr(window)[:80]}")
    start, end = (checked_number("timestamps", edge) for edge in window)
    words = checked_text("sentences", sentence)
    return Told(line=line, video=video, number=number, sentence=words, start=start, end=end, entry=entry)


def _within(entry: str, bad: BadRow) -> BadRow:
    """The same fault, with the entry that has it before its key."""
    return type(bad)(f"{entry[:80]} {bad.key}", bad.reason)


def refuse_backwards(start_s: float, end_s: float) -> None:
    """Published loaders of ActivityNet Captions and TACoS leave such sentences out."""
    if end_s <= start_s:
        raise KnownFault("timestamps", f"[{start_s:g}, {end_s:g}] does not end after it starts")
