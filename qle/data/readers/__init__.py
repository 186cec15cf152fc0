"""One reader a dataset: its own files enter, annotations leave. numpy and the standard library (and pyarrow for large CSV).

    files of a dataset --text_rows.py | json_items.py: lines and entries, with where they stand--> a reader --> Annotation ...
                                                                                              `--> readlog: wrong rows

interval_csv.py                        your own table: video, query, start, end
cholec80.py, cholect50.py              surgery; concepts.py has the words for their phases, tools and triplets
qle_triplets.py                        frame, query and label, as QLE was published
qvhighlights.py, tvsum.py              moments and highlights
charades_sta.py, charades_splits.py    Charades-STA, and its further splits CG and CD
tacos.py, tacos_coarse.py              TACoS, and sentences about its whole videos
activitynet.py, didemo.py, msrvtt.py   captions of moments, of videos
video_sentences.py                     the form that ActivityNet, TACoS and the splits of Charades have in common
text_rows.py, json_items.py            text files line by line, JSON files entry by entry
query_features.py                      published features of queries, matched by qid
splits.py                              which video belongs to which part

Every reader has the form `read(source, log, **its options) -> list[Annotation]`: it hands wrong rows to the log, and its
caller closes the log. Splits are not a reader's business (splits.py) unless the file itself names them.
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
