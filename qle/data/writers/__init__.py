"""The way back: annotations enter, the bytes of a dataset's own files leave. One file a dataset, beside its reader's name.

    Annotation ... --rows.py: what the format can hold--> a writer --{path: bytes}--> export.py: all files or none

export.py            annotations -> files in a dataset's own format, and what of them the format could not hold
parts.py             annotations -> train.jsonl, val.jsonl, test.jsonl, which training and evaluation read
rows.py              what the writers share: which annotations a format can hold, plain numbers
qvhighlights.py, charades_sta.py, tacos.py, activitynet.py, captions.py, tvsum.py   one format each
video_sentences.py   the form that several of them have in common
triplets.py          frame, query and label, the form that QLE was published with

Every writer has the form `encode(out, annotations, log) -> {path: bytes}`. What its format has no word for goes to the log, and
what it cannot be written without is an AnnotationError.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from qle.config import load_plugin
from qle.data.annotations import Annotation
from qle.data.readlog import ReadLog

Encode = Callable[[Path, Sequence[Annotation], ReadLog], Mapping[Path, bytes]]

WRITERS: dict[str, str] = {
    "qvhighlights": "qle.data.writers.qvhighlights:encode",
    "qvhighlights-submission": "qle.data.writers.qvhighlights:encode_submission",
    "lighthouse": "qle.data.writers.qvhighlights:encode_windows",
    "charades-sta": "qle.data.writers.charades_sta:encode",
    "tacos": "qle.data.writers.tacos:encode",
    "tacos-cg": "qle.data.writers.tacos:encode_coarse",
    "activitynet": "qle.data.writers.activitynet:encode",
    "didemo": "qle.data.writers.captions:encode_didemo",
    "msrvtt": "qle.data.writers.captions:encode_msrvtt",
    "tvsum": "qle.data.writers.tvsum:encode",
}


def writer(name: str) -> Encode:
    """The writer of that name, one of WRITERS."""
    encode: Encode = load_plugin(WRITERS[name])
    return encode
