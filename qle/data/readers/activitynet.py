"""ActivityNet Captions, in both published forms: the official JSON, and JSON Lines in the keys of QVHighlights.

    {"v_uqiMw7tQ1Cc": {"duration": 55.15, "timestamps": [[0.28, 55.15], ...], "sentences": [...]}}

Windows that reach past the end are cut there. A few training sentences end before they start: published loaders leave them
out, and so does this one, by name. Sentences keep the spaces that they begin with.
"""

from pathlib import Path

from qle.data.annotations import Annotation, checked_windows
from qle.data.readers import qvhighlights
from qle.data.readers.json_items import is_json_lines
from qle.data.readers.video_sentences import Told, read_told, refuse_backwards
from qle.data.readlog import KnownFault, ReadLog


def read(source: Path, log: ReadLog) -> list[Annotation]:
    if is_json_lines(source):
        return qvhighlights.read(source, log)

    def annotation(told: Told) -> Annotation:
        duration_s = told.number_of("duration")
        refuse_backwards(told.start, told.end)
        if told.start >= duration_s:
            raise KnownFault(
                "timestamps", f"starts at {told.start:g} s, behind the end of the video at {duration_s:g} s"
            )
        windows = checked_windows([[told.start, told.end]], duration_s, log, slack_s=told.end)
        return Annotation(
            qid=told.qid, video=told.video, query=told.sentence, duration_s=duration_s, windows=windows
        )  # fmt: skip

    return read_told(source, log, annotation)
