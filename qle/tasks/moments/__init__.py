"""The task of answering a query with ranked spans of a video.

batches/       joined streams of clips + annotations -> MomentBatch: a window of clips and one query each
training.py    trains a head on them, and calibrates its scores
scoring.py     a cached video + queries -> candidate spans and the saliency of clips
answering.py   queries -> predictions, as `qle localize` shows them
evaluation.py  a run + annotations -> the numbers of the protocol "moments"
"""

from qle.task import Task

TASK = Task(
    name="moments",
    training="qle.tasks.moments.training:MomentTraining",
    data_config="qle.tasks.moments.batches.config:MomentDataConfig",
    evaluation="qle.tasks.moments.evaluation:evaluate_moments",
    protocols=("moments", "charades", "qvhighlights", "corpus"),
    answerer="qle.tasks.moments.answering:MomentAnswerer",
    use="qle localize --checkpoint {run} --cache ... --query '...'",
)
