"""Training heads from the cache. Adding a kind of head is one file with a Task, and one line here."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qle.train.training import Task

TASKS = {
    "moments": "qle.tasks.moments.training:MomentTask",
    "retrieval": "qle.tasks.retrieval.training:RetrievalTask",
    "rows": "qle.tasks.rows.training:RowTask",
}
"""`Head.task` -> class; imported when asked for."""


def task_class(name: str) -> "type[Task]":
    """The class behind the `task` of a head."""
    module, _, attribute = TASKS[name].partition(":")
    found: type[Task] = getattr(import_module(module), attribute)
    return found
