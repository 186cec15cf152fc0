"""Heads: what is trained on cached tokens. A head is a config, `forward(batch)` and `loss(output, batch)`.

    RowBatch (tokens, questions) + Words --RowHead--> a relevance map and a score for every row
    MomentBatch (clips, queries) + Words --MomentHead--> ranked spans, saliency of clips
    RetrievalBatch (frames, texts) + Words --RetrievalHead--> similarities

base.py          the interface of all heads
rows.py, moments.py, retrieval.py   the interface of each kind, and the batch that it is trained on
qle/             rows: attention of patches to words, a map, a score
moment_detr.py, qd_detr.py   moments: Moment-DETR; QD-DETR, whose clips listen to the query first
cg_detr/, mesm/  moments: CG-DETR; MESM
tmass/           retrieval: T-MASS

Adding one is one file, one line in HEADS, one preset (docs/adding.md).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qle.config import build_config, load_plugin
from qle.errors import ConfigError
from qle.task import Task, named_task

if TYPE_CHECKING:
    from qle.heads.base import Head, TokenShapes

HEADS = {
    "qle": "qle.heads.qle.head:QleHead",
    "moment_detr": "qle.heads.moment_detr:MomentDetrHead",
    "qd_detr": "qle.heads.qd_detr:QdDetrHead",
    "cg_detr": "qle.heads.cg_detr.head:CgDetrHead",
    "mesm": "qle.heads.mesm.head:MesmHead",
    "tmass": "qle.heads.tmass.head:TmassHead",
}
"""Name of --head -> class; imported when asked for."""


def head_class(name: str) -> "type[Head]":
    """The class behind a name, or ConfigError with the names that there are."""
    if name not in HEADS:
        hint = f"\nname presets with --preset {name}" if name.partition("/")[0] in HEADS else ""
        raise ConfigError(f"unknown head {name!r}: choose one of {', '.join(sorted(HEADS))}{hint}")
    loaded: type[Head] = load_plugin(HEADS[name])
    return loaded


def task_of(name: str) -> Task:
    """The task that the heads of this name are made for."""
    return named_task(head_class(name).task)


def build_head(name: str, settings: Mapping[str, Any], shapes: "TokenShapes") -> "Head":
    """A head with fresh weights. `settings` are fields of its config; unknown ones and bad values are a ConfigError."""
    cls = head_class(name)
    return cls(build_config(cls.Config, settings, where=f"head {name}"), shapes)
