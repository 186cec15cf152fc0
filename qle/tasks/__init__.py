"""What differs between tasks: one folder each. `qle/task.py` lists them and says what a task is.

    rows/        every row of a video gets a score for the query; moments are cut from the scores
    moments/     a query is answered with ranked spans
    retrieval/   a text ranks the videos of a corpus

Each folder has batches/ (cached tokens + annotations -> batches), training.py, scoring.py (a run + videos -> raw numbers),
answering.py (-> predictions, where the task finds moments) and evaluation.py (-> a report). What they share stands here:

answering.py    the interface of answerers: what a run says about a video, whatever its task is
evaluation.py   protocols that measure predictions, for runs of any task that makes some
known.py        how far a query is from everything that a run was trained on
scoring.py      heads and text encoders put into evaluation mode on their device
"""
