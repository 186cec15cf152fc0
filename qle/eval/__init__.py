"""Metrics and protocols: what was answered and what is true enter, numbers with intervals and floors leave. No torch.

    EvaluationRequest --run.py: which protocol--> qle/tasks score runs | submissions/ reads files --> answers
    answers + windows --rows/ | moments/ | retrieval.py | corpus.py--> report.py: Report, with bootstrap.py and floors.py

request.py    what is asked of an evaluation, and what comes out of it
run.py        which protocol, and who carries it out
report.py     the outcome: each number with its interval and floors, what was skipped, how it was measured
rows/         heads that score every row: frames, segments, calibration
moments/      ranked spans: R1, mAP, mIoU, highlights
submissions/  files of predictions that other programs wrote, by the official protocols
retrieval.py  texts find videos, and videos texts
corpus.py     one ranked list of moments a query, over all videos
windows.py    moments against annotated windows: matching, precision, recall, boundary errors
ranking.py    AUROC, average precision, F1
presence.py, absent.py   whether it is noticed that a query does not happen; the same with intervals by video
bootstrap.py  intervals by resampling videos
floors.py     what can be had without looking
logistic.py   scores to probabilities
"""
