"""The tasks that heads are made for: one folder each below `qle/tasks`, and one line here.

    Head.task -> named_task -> Task -> the classes of its folder, imported when they are asked for

A task says what heads of its kind are fed with, how they are trained, how runs of them are measured, and how they answer
queries. Everything else in qle asks the task of a head instead of knowing the heads. Importing this file loads no torch, so that
every part may read it. A variant of a task is `dataclasses.replace(TASK, name=..., training=...)`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qle.config import load_plugin
from qle.errors import ConfigError

if TYPE_CHECKING:
    from qle.tasks.answering import Answerer
    from qle.train.training import Training


@dataclass(frozen=True, kw_only=True)
class Task:
    """Where everything stands that differs from one task to another. Classes are written "module:Class"."""

    name: str
    """What `Head.task` of its heads says."""
    training: str
    """The `qle.train.training.Training` that opens the data of a training and finishes its runs."""
    data_config: str
    """The dataclass behind the settings `data.*`."""
    evaluation: str
    """"module:function" of (EvaluationRequest, runs, on_progress) that measures runs by the first of the protocols."""
    protocols: tuple[str, ...]
    """What `qle eval --protocol` may be for its runs; the first is the one of the task itself, and the default."""
    answerer: str | None
    """The `qle.tasks.answering.Answerer` of its runs. None: they rank videos and find no moments."""
    use: str
    """The command that a finished run is good for, with {run} for its folder."""

    @property
    def ranks_videos(self) -> bool:
        """Whether its runs say which video a text is about, and not when."""
        return self.answerer is None

    @property
    def training_class(self) -> "type[Training]":
        loaded: type[Training] = load_plugin(self.training)
        return loaded

    @property
    def data_config_class(self) -> type:
        loaded: type = load_plugin(self.data_config)
        return loaded

    @property
    def answerer_class(self) -> "type[Answerer] | None":
        return None if self.answerer is None else load_plugin(self.answerer)


TASKS: dict[str, str] = {
    "rows": "qle.tasks.rows:TASK",
    "moments": "qle.tasks.moments:TASK",
    "retrieval": "qle.tasks.retrieval:TASK",
}
"""`Head.task` -> "module:TASK", imported on look-up."""


def named_task(name: str) -> Task:
    """The task of a name; ConfigError where TASKS has no such."""
    if name not in TASKS:
        raise ConfigError(f"unknown task {name!r}: choose one of {', '.join(TASKS)}")
    task: Any = load_plugin(TASKS[name])
    assert isinstance(task, Task), TASKS[name]
    return task
