"""Charades-CG (new compositions, new words) and Charades-CD (another distribution of moments): Charades-STA split anew, as JSON.

    CG  {"AO8RW": {"timestamps": [[0.0, 6.9]], "sentences": [...], "duration": 33.67, "novels": [{"v-adv": [["put", "on"]]}]}}
    CD  {"QM4AD": {"timestamps": [[17.7, 23.4]], "sentences": [...], "video_duration": 23.5625, "framestamps": ..., ...}}

Each file is one split, named as it is published (train, novel_word, charades_test_ood, ...). The rules for windows are those of
Charades-STA (three sentences of the published CD test_ood start behind the end of their video). What CG says is new in a
sentence is kept in `origin`; frames and encoded sentences of CD say nothing that times and words do not.
"""

from pathlib import Path
from typing import Any

from qle.data.annotations import Annotation
from qle.data.readers.charades_sta import charades_windows
from qle.data.readers.video_sentences import Told, read_told
from qle.data.readlog import BadRow, ReadLog

NEW_KEYS = ("novels", "news")
"""What is new in a sentence: the pair of words, or the word."""


def read(source: Path, log: ReadLog) -> list[Annotation]:
    def annotation(told: Told) -> Annotation:
        duration_s = told.number_of("duration" if "duration" in told.entry else "video_duration")
        return Annotation(
            qid=told.qid, video=told.video, query=told.sentence, duration_s=duration_s,
            windows=charades_windows(told.start, told.end, duration_s, log, source, told.line), origin=_new(told),
        )  # fmt: skip

    return read_told(source, log, annotation)


def _new(told: Told) -> dict[str, Any]:
    new: dict[str, Any] = {}
    for key in NEW_KEYS:
        if key in told.entry:
            tags = told.entry[key]
            if not isinstance(tags, list) or len(tags) != len(told.entry["sentences"]):
                raise BadRow(key, "expected a list with one entry a sentence")
            new[key] = tags[told.number]
    return new
