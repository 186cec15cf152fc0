"""A task that qle does not have: which single frame shows a query best? It stands here as a user's own task would.

head.py        frames of whole videos + sentences -> a score of every frame
training.py    batches of whole videos, validation, and what a run of it keeps
answering.py   a query -> one moment: the stretch of the best frame
evaluation.py  a run + annotations -> how often the best frame lies inside a window
"""

from qle.task import Task

TASK = Task(
    name="toy",
    training="tests.toy_task.training:ToyTraining",
    data_config="tests.toy_task.training:ToyDataConfig",
    evaluation="tests.toy_task.evaluation:evaluate_toy",
    protocols=("toy", "moments"),
    answerer="tests.toy_task.answering:ToyAnswerer",
    use="qle localize --checkpoint {run} --cache ... --query '...'",
)
HEAD = "tests.toy_task.head:ToyHead"
