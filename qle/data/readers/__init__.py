"""One reader a dataset: its own files enter, annotations leave. numpy and the standard library (and pyarrow for large CSV).

Every reader has the form `read(source, log, **its options) -> list[Annotation]`: it hands wrong rows to the log, and its
caller closes the log. Splits are not a reader's business (qle/data/readers/splits.py) unless the file itself names them.
"""

from collections.abc import Callable

from qle.config import load_plugin
from qle.data.annotations import Annotation

READERS: dict[str, str] = {
    "intervals": "qle.data.readers.interval_csv:read",
    "qvhighlights": "qle.data.readers.qvhighlights:read",
    "triplets": "qle.data.readers.qle_triplets:read",
    "cholec80": "qle.data.readers.cholec80:read",
    "cholect50": "qle.data.readers.cholect50:read",
    "charades": "qle.data.readers.charades_sta:read",
    "charades-cg": "qle.data.readers.charades_splits:read",
    "charades-cd": "qle.data.readers.charades_splits:read",
    "tacos": "qle.data.readers.tacos:read",
    "tacos-cg": "qle.data.readers.tacos_coarse:read",
    "activitynet": "qle.data.readers.activitynet:read",
    "didemo": "qle.data.readers.didemo:read",
    "msrvtt": "qle.data.readers.msrvtt:read",
    "tvsum": "qle.data.readers.tvsum:read",
}


def reader(name: str) -> Callable[..., list[Annotation]]:
    """The reader of that name; a name is as `qle prepare` knows it."""
    read: Callable[..., list[Annotation]] = load_plugin(READERS[name])
    return read
