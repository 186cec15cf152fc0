"""`{video: {"timestamps": ..., "sentences": ..., ...}}`, in the order in which the videos come first."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from qle.data.annotations import Annotation, Window
from qle.data.readlog import ReadLog
from qle.data.writers.rows import single_windows, tell_lost


@dataclass(slots=True)
class Sentences:
    """The sentences of one video."""

    first: Annotation
    """Any of its annotations: what they say about the video itself is the same."""
    sentences: list[str] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)


def sentences_by_video(annotations: Sequence[Annotation], log: ReadLog) -> dict[str, Sentences]:
    videos: dict[str, Sentences] = {}
    for annotation, window in single_windows(annotations, log):
        video = videos.setdefault(annotation.video, Sentences(annotation))
        video.sentences.append(annotation.query)
        video.windows.append(window)
    tell_lost(annotations, log, "saliency", "boxes", "masks", "concept", "split")
    return videos
