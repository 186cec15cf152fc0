"""Official checkpoints to runs, and back: one file for each official program, which ties its names of tensors to ours.

    official file --weights.py (nothing in it is executed)--> tensors --links.py, one of the tables--> head
        --convert.py--> a run folder

convert.py       `import_checkpoint` and `export_checkpoint`: every tensor is accounted for
links.py         one table of names that serves both directions
detr.py          what the programs of the Moment-DETR family have in common
moment_detr.py, qd_detr.py, cg_detr.py, mesm.py, tmass.py   the tables of each program
qle.py           checkpoints of Language-Guided-Endoscopy-Localization, one way only

Each table has `head_from_official(state, settings)`, `official_state(head)` and `official_options(head)`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Where an official program keeps its weights, and what they become."""

    module: str
    head: str
    """Name in HEADS."""
    entry: str
    """Which entry of the training file holds the weights."""


UPSTREAMS = {
    "moment-detr": Upstream(module="qle.compat.moment_detr", head="moment_detr", entry="model"),
    "qd-detr": Upstream(module="qle.compat.qd_detr", head="qd_detr", entry="model"),
    "cg-detr": Upstream(module="qle.compat.cg_detr", head="cg_detr", entry="model"),
    "mesm": Upstream(module="qle.compat.mesm", head="mesm", entry="model"),
    "tmass": Upstream(module="qle.compat.tmass", head="tmass", entry="state_dict"),
}
"""Name of --from -> upstream; imported when asked for."""
