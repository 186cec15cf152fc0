"""The task of scoring every row of a video for a query; moments are cut from the scores.

batches/       cached tokens + annotations -> RowBatch: windows of rows, each with its questions
training.py    trains a head on them, and fits how moments are cut from its scores
validation.py  scores whole validation videos and says how good the weights are at the time
scoring.py     a cached video + queries -> a ScoreTrack for each, in bounded memory
answering.py   queries -> predictions, as `qle localize` shows them
evaluation.py  a run + annotations -> the numbers of the protocol "rows"
"""

from qle.task import Task

TASK = Task(
    name="rows",
    training="qle.tasks.rows.training:RowTraining",
    data_config="qle.tasks.rows.batches.config:DataConfig",
    evaluation="qle.tasks.rows.evaluation:evaluate_rows",
    protocols=("rows", "moments", "charades", "qvhighlights", "corpus"),
    answerer="qle.tasks.rows.answering:RowAnswerer",
    use="qle localize --checkpoint {run} --cache ... --query '...'",
)
