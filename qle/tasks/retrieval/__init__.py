"""The task of ranking the videos of a corpus for a text.

batches/       a few frames of each video + annotations -> RetrievalBatch: pairs of text and video
training.py    trains a head on them
scoring.py     texts + videos -> their similarities
evaluation.py  a run + annotations -> the numbers of the protocol "retrieval"
"""

from qle.task import Task

TASK = Task(
    name="retrieval",
    training="qle.tasks.retrieval.training:RetrievalTraining",
    data_config="qle.tasks.retrieval.batches.config:RetrievalDataConfig",
    evaluation="qle.tasks.retrieval.evaluation:evaluate_retrieval",
    protocols=("retrieval",),
    answerer=None,
    use="qle search --retriever {run} --cache ... --query '...'",
)
