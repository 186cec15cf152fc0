"""ActivityNet Captions as its official JSON. Charades-CG is of the same form, and its readers read this."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from qle.data.annotations import Annotation
from qle.data.readlog import ReadLog
from qle.data.writers.rows import duration_of, json_document, plain
from qle.data.writers.video_sentences import sentences_by_video


def encode(out: Path, annotations: Sequence[Annotation], log: ReadLog) -> Mapping[Path, bytes]:
    content = {
        video: {
            "duration": duration_of(told.first),
            "timestamps": [[plain(edge_s) for edge_s in window] for window in told.windows],
            "sentences": told.sentences,
        }
        for video, told in sentences_by_video(annotations, log).items()
    }
    return {out: json_document(content)}
