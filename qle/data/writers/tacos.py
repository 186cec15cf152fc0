"""TACoS as JSON, times in frames; and TACoS-CG, sentences about whole videos. Names of videos get their ".avi" back."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qle.data.annotations import Annotation
from qle.data.readers.tacos import FPS, SUFFIX
from qle.data.readlog import ReadLog
from qle.data.writers.rows import duration_of, json_document, tell_lost
from qle.data.writers.video_sentences import sentences_by_video


def encode(out: Path, annotations: Sequence[Annotation], log: ReadLog) -> Mapping[Path, bytes]:
    """Times that came from frames become the same frames again; others are rounded to frames."""
    content: dict[str, Any] = {}
    for video, told in sentences_by_video(annotations, log).items():
        fps, num_frames = _frames(told.first)
        content[f"{video}{SUFFIX}"] = {
            "timestamps": [[round(edge_s * fps) for edge_s in window] for window in told.windows],
            "sentences": told.sentences,
            "fps": fps,
            "num_frames": num_frames,
        }
    return {out: json_document(content)}


def encode_coarse(out: Path, annotations: Sequence[Annotation], log: ReadLog) -> Mapping[Path, bytes]:
    """A row for each query; when it happens is not said."""
    rows: list[dict[str, Any]] = []
    for annotation in annotations:
        fps, num_frames = _frames(annotation)
        rows.append(
            {
                "video_id": f"{annotation.video}{SUFFIX}",
                "summarized_sentence": annotation.query,
                "fps": fps,
                "num_frames": num_frames,
            }
        )  # fmt: skip
    tell_lost(annotations, log, "windows", "saliency", "boxes", "masks", "concept", "split")
    return {out: json_document(rows)}


def _frames(annotation: Annotation) -> tuple[float, int]:
    """Frames a second, and how many."""
    fps, num_frames = annotation.origin.get("fps", FPS), annotation.origin.get("num_frames")
    return fps, round(duration_of(annotation) * fps) if num_frames is None else num_frames
