"""Official checkpoints -> ours, and back: one file per upstream with tables of names, nothing else.

Each file has `head_from_official(state, settings)`, `official_state(head)` and `official_options(head)`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Where an official program keeps its weights, and what they become."""

    module: str
    head: str
    """Name in HEADS."""
    entry: str
    """Of the training file: which part of it holds the weights."""


UPSTREAMS = {
    "moment-detr": Upstream(module="qle.compat.moment_detr", head="moment_detr", entry="model"),
    "qd-detr": Upstream(module="qle.compat.qd_detr", head="qd_detr", entry="model"),
    "cg-detr": Upstream(module="qle.compat.cg_detr", head="cg_detr", entry="model"),
    "mesm": Upstream(module="qle.compat.mesm", head="mesm", entry="model"),
    "tmass": Upstream(module="qle.compat.tmass", head="tmass", entry="state_dict"),
}
"""Name of --from -> upstream; imported when asked for."""
