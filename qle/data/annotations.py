"""The neutral annotation: one query about one video, and when it happens there. numpy and the standard library only.

Whatever a dataset looks like, its reader makes these; everything later (training, evaluation, floors) knows nothing else.
On disk: JSONL in the QVHighlights keys (`qid`, `query`, `vid`, `duration`, `relevant_windows`, `relevant_clip_ids`,
`saliency_scores`); what those have no word for (`split`, `concept`, `boxes`, `masks`) stands in one nested object `qle`.
"""

from dataclasses import dataclass

import numpy as np

Window = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameBox:
    """Where the thing is at one time. Fractions of the picture: 0, 0 is the upper left corner, 1, 1 the lower right."""

    time_s: float
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """A query about a video. No windows: it is known that the query does not happen in this video."""

    qid: str
    video: str
    """Key in the cache, or a part of it that only one key has (the stem of the file)."""
    query: str
    windows: tuple[Window, ...]
    """Sorted, (start, end) in seconds from the beginning of the video (of the clip, where a manifest lists clips)."""
    duration_s: float | None = None
    saliency: np.ndarray | None = None
    """(clips, raters) float32, NaN where nobody rated: scores of clips of `clip_s` seconds from the beginning on."""
    clip_s: float = 2.0
    boxes: tuple[FrameBox, ...] = ()
    masks: str = ""
    """Where pixel masks of the thing lie: "masks/video.npz:name", relative to the annotation file (data/masks.py)."""
    split: str = ""
    """train, val, test, or a name of the dataset's own (composition, paraphrase); "" where the file is the split."""
    concept: str = ""
    """Queries with the same concept mean the same (synonyms, paraphrases) and are never negatives of each other.
    "" means: the query's own words, case and spaces aside."""
    is_labelled: bool = True
    """False: nobody has told when it happens (a hidden test set). No windows then says nothing, and nothing is trained or
    measured with it; readers give such rows only to those who ask for them."""

    @property
    def concept_key(self) -> str:
        return self.concept or " ".join(self.query.lower().split()).rstrip(".")

    @property
    def is_present(self) -> bool:
        return bool(self.windows)

    @property
    def is_absent(self) -> bool:
        """It is known that the query does not happen in this video."""
        return self.is_labelled and not self.windows
