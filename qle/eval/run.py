"""Trained runs on a cache and an annotation file, or a file of predictions: which protocol, and who carries it out.

    EvaluationRequest -> protocol -> function of the task, or of SHARED -> Evaluation

    rows          tasks/rows/evaluation.py       every row of a video: AUROC, moments cut from them, calibration, absent queries
    moments       tasks/moments/evaluation.py    ranked moments: R1, R5, mAP, mIoU, classes of length, highlights, absent queries
                  tasks/evaluation.py            the same of runs of other tasks that answer queries
    charades      tasks/evaluation.py            R1 and R5 as of Charades-STA
    qvhighlights  tasks/evaluation.py            exactly what the program of QVHighlights prints
    retrieval     tasks/retrieval/evaluation.py  which video a text is about, and the other way round
    corpus        search/evaluation.py           moments of a whole corpus: a retriever finds the videos, the run the moments

Nothing is fitted here (but the weights of a corpus search, where --fit asks for them): thresholds, temperature and priors come
from the runs. The same call on another cache and other annotations measures transfer, and the report says how much of them
was new to the run.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from qle.config import load_plugin
from qle.errors import CheckpointError, ConfigError
from qle.eval.request import EvaluatedRun, Evaluation, EvaluationRequest, Runs
from qle.eval.submissions.measure import DEFAULT, evaluate_file
from qle.heads import task_of
from qle.runs.record import CONFIG_FILE, RunRecord, read_run
from qle.task import TASKS, Task, named_task
from qle.types import OnProgress

SHARED = {
    "moments": "qle.tasks.evaluation:evaluate_predictions",
    "charades": "qle.tasks.evaluation:evaluate_predictions",
    "qvhighlights": "qle.tasks.evaluation:evaluate_predictions",
    "corpus": "qle.search.evaluation:evaluate_corpus",
}
"""Protocols that measure runs of several tasks -> "module:function". A run is measured by the first protocol of its task unless
another is asked for; that one's function stands in the task."""

Measure = Callable[[EvaluationRequest, Runs, OnProgress | None], Evaluation]


def protocol_names() -> tuple[str, ...]:
    """What --protocol may be."""
    return tuple(dict.fromkeys(name for task in TASKS for name in named_task(task).protocols))


def evaluate_runs(request: EvaluationRequest, on_progress: OnProgress | None = None) -> Evaluation:
    """Everything that can be wrong with files and names is said before the first row is scored."""
    if request.protocol is not None and request.protocol not in protocol_names():
        raise ConfigError(f"--protocol {request.protocol}: choose one of {', '.join(protocol_names())}")
    if request.predictions is not None:
        _check_options(request, request.protocol or DEFAULT)
        return evaluate_file(request, request.predictions)
    folders = [run_folder for path in request.checkpoints for run_folder in run_folders(path)]
    runs = [(folder, read_run(folder)) for folder in folders]
    tasks = [task_of(record.head) for _, record in runs]
    name = _protocol_of(request.protocol, folders, tasks)
    _check_options(request, name)
    request = replace(request, protocol=name)
    measured: dict[Path, EvaluatedRun] = {}
    missing: dict[str, None] = {}
    by_function: dict[str, list[tuple[Path, RunRecord]]] = {}
    for run, task in zip(runs, tasks, strict=True):
        by_function.setdefault(_function_of(name, task), []).append(run)
    for function, group in by_function.items():
        measure: Measure = load_plugin(function)
        evaluation = measure(request, group, on_progress)
        measured |= {run.folder: run for run in evaluation.runs}
        missing |= dict.fromkeys(evaluation.missing)
    return Evaluation(protocol=name, runs=tuple(measured[folder] for folder in folders), missing=tuple(missing))


def run_folders(path: Path) -> tuple[Path, ...]:
    """The run itself, or the runs under it that `qle train-heads --seeds` made."""
    if (path / CONFIG_FILE).exists() or not path.is_dir():
        return (path,)
    seeds = sorted(
        (folder for folder in path.glob("seed-*") if folder.name[5:].isdigit()), key=lambda folder: int(folder.name[5:])
    )
    return tuple(seeds) or (path,)


def _check_options(request: EvaluationRequest, name: str) -> None:
    """ConfigError for options that the protocol would not listen to."""
    if (request.published_leaking_score or request.with_dsl) and name != "retrieval":
        raise ConfigError(f"--published-leaking-score and --dsl belong to --protocol retrieval, this is {name}")
    is_corpus = [request.retriever, request.fusion, request.fit] != [None] * 3
    if is_corpus and name != "corpus":
        raise ConfigError(f"--retriever, --fusion and --fit belong to --protocol corpus, this is {name}")
    if request.space is not None and name == "retrieval":
        raise ConfigError(f"--space {request.space}: runs that rank videos find the space that they read by themselves")


def _function_of(protocol: str, task: Task) -> str:
    """Who measures runs of the task by the protocol."""
    return task.evaluation if protocol == task.protocols[0] else SHARED[protocol]


def _protocol_of(asked: str | None, folders: Sequence[Path], tasks: Sequence[Task]) -> str:
    """The protocol that is asked for, or that of the first run; CheckpointError where a run cannot be measured by it."""
    name = asked or tasks[0].protocols[0]
    for folder, task in zip(folders, tasks, strict=True):
        if name not in task.protocols:
            reason = f"--protocol {name}" if asked else f"{folders[0]}, which is measured by {name}"
            raise CheckpointError(
                f"{folder}: its head is for {task.name}, which does not go with {reason}\n"
                f"choose one of --protocol {', '.join(task.protocols)}, and measure runs of different kinds apart"
            )
    return name
