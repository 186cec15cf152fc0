"""TACoS, in both published forms: JSON with times in frames, and JSON Lines in the keys of QVHighlights with seconds.

    {"s17-d69.avi": {"timestamps": [[201, 487], ...], "sentences": [...], "fps": 29.4, "num_frames": 12438}}
    {"qid": "s17-d69_0", "query": ..., "duration": 423.06, "vid": "s17-d69", "relevant_windows": [[6.84, 16.56]]}

Frame k is at k / fps seconds, and the last frame is the length of the video, as all published results have it. Videos lose
their ".avi": the two forms then give equal annotations. Windows that reach past the last frame are cut there (43 of the
training, 5 of the test sentences).
"""

from pathlib import Path

from qle.data.annotations import Annotation, checked_windows
from qle.data.readers import qvhighlights
from qle.data.readers.json_items import is_json_lines
from qle.data.readers.video_sentences import Told, read_told, refuse_backwards
from qle.data.readlog import ReadLog

SUFFIX = ".avi"
FPS = 29.4
"""Frames a second of every video of TACoS."""
CUT_S = 2.0
"""Windows of the published files reach out by 15 frames at most."""


def read(source: Path, log: ReadLog) -> list[Annotation]:
    if is_json_lines(source):
        return qvhighlights.read(source, log, suffix=SUFFIX)

    def annotation(told: Told) -> Annotation:
        fps, num_frames = told.number_of("fps"), told.number_of("num_frames")
        duration_s, start_s, end_s = num_frames / fps, told.start / fps, told.end / fps
        refuse_backwards(start_s, end_s)
        return Annotation(
            qid=told.qid, video=told.video, query=told.sentence, duration_s=duration_s,
            windows=checked_windows([[start_s, end_s]], duration_s, log, slack_s=CUT_S),
            origin={"fps": told.entry["fps"], "num_frames": told.entry["num_frames"]},
        )  # fmt: skip

    return read_told(source, log, annotation, suffix=SUFFIX)
