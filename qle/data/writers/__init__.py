"""The way back: annotations enter, the bytes of a dataset's own files leave. One file a dataset, beside its reader's name.

Every writer has the form `encode(out, annotations, log) -> {path: bytes}`. What its format has no word for goes to the log, and
what it cannot be written without is an AnnotationError; `qle.data.writers.export` writes the bytes.
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
