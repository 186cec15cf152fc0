"""Trained runs on a cache and an annotation file, or a file of predictions: which protocol, and who carries it out.

    EvaluationRequest -> PROTOCOLS[protocol] -> Evaluation

    rows          row_evaluation.py         every row of a video: AUROC, moments cut from them, calibration, absent queries
    moments       moment_evaluation.py      ranked moments: R1, R5, mAP, mIoU, classes of length, highlights, absent queries
    charades      moment_evaluation.py      R1 and R5 as of Charades-STA
    qvhighlights  moment_evaluation.py      exactly what the program of QVHighlights prints
    retrieval     retrieval_evaluation.py   which video a text is about, and the other way round
    corpus        corpus_evaluation.py      moments of a whole corpus: a retriever finds the videos, the run the moments

Nothing is fitted here (but the weights of a corpus search, where --fit asks for them): thresholds, temperature and priors come
from the runs. The same call on another cache and other annotations measures transfer, and the report says how much of them
was new to the run.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from qle.errors import CheckpointError, ConfigError
from qle.eval.request import EvaluatedRun, Evaluation, EvaluationRequest, OnProgress, Runs
from qle.eval.submissions.measure import DEFAULT, evaluate_file
from qle.runs.record import CONFIG_FILE, read_run

__all__ = ["PROTOCOLS", "EvaluatedRun", "Evaluation", "EvaluationRequest", "evaluate_runs", "run_folders"]


@dataclass(frozen=True, slots=True)
class Protocol:
    """Who measures runs by it, and of which heads."""

    function: str
    """"module:function" of (request, runs, on_progress), imported when asked for."""
    tasks: tuple[str, ...]
    """`Head.task` of the heads that it can measure."""


PROTOCOLS = {
    "rows": Protocol("qle.tasks.rows.evaluation:evaluate_rows", ("rows",)),
    "moments": Protocol("qle.tasks.moments.evaluation:evaluate_moments", ("moments", "rows")),
    "charades": Protocol("qle.tasks.moments.evaluation:evaluate_moments", ("moments", "rows")),
    "qvhighlights": Protocol("qle.tasks.moments.evaluation:evaluate_moments", ("moments", "rows")),
    "retrieval": Protocol("qle.retrieval_runs:evaluate_ranking", ("retrieval",)),
    "corpus": Protocol("qle.search.evaluation:evaluate_corpus", ("moments", "rows")),
}
"""What --protocol may be. A run is measured by the one that is called as its head's task unless another is asked for."""


def evaluate_runs(request: EvaluationRequest, on_progress: OnProgress | None = None) -> Evaluation:
    """Everything that can be wrong with files and names is said before the first row is scored."""
    if request.protocol is not None and request.protocol not in PROTOCOLS:
        raise ConfigError(f"--protocol {request.protocol}: choose one of {', '.join(PROTOCOLS)}")
    if request.predictions is not None:
        _check_options(request, request.protocol or DEFAULT)
        return evaluate_file(request, request.predictions)
    folders = [found for path in request.checkpoints for found in run_folders(path)]
    runs = [(folder, read_run(folder)) for folder in folders]
    name = _protocol_of(request.protocol, runs)
    _check_options(request, name)
    module, _, function = PROTOCOLS[name].function.partition(":")
    measure: Callable[[EvaluationRequest, Runs, OnProgress | None], Evaluation] = getattr(
        import_module(module), function
    )
    return measure(replace(request, protocol=name), runs, on_progress)


def run_folders(path: Path) -> tuple[Path, ...]:
    """The run itself, or the runs under it that `qle train-heads --seeds` made."""
    if (path / CONFIG_FILE).exists() or not path.is_dir():
        return (path,)
    seeds = sorted(
        (found for found in path.glob("seed-*") if found.name[5:].isdigit()), key=lambda found: int(found.name[5:])
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


def _protocol_of(asked: str | None, runs: Runs) -> str:
    from qle.heads import head_class

    tasks = {folder: head_class(record.head).task for folder, record in runs}
    folder, task = next(iter(tasks.items()))
    name = asked or task
    for other, its_task in tasks.items():
        if its_task not in PROTOCOLS[name].tasks:
            fitting = [protocol for protocol, one in PROTOCOLS.items() if its_task in one.tasks]
            reason = f"--protocol {name}" if asked else f"{folder}, which is measured by {name}"
            raise CheckpointError(
                f"{other}: its head is for {its_task}, which does not go with {reason}\n"
                f"choose one of --protocol {', '.join(fitting)}, and measure runs of different kinds apart"
            )
    return name
