"""Heads that answer with ranked spans, measured: candidates of a head enter, a Report leaves.

    ranked.py: candidates beside their annotation
        --answers.py: head and floors--> metrics.py | detection.py | highlights.py --report.py--> Report

ranked.py       what a head said about one annotation
answers.py      who is measured: a head, a file of predictions, and each floor as if it were a head
metrics.py      numbers of every pair of video and query: R1, R5, mAP, mIoU
detection.py    average precision of ranked spans
highlights.py   whether the clips that people liked are scored high
report.py       numbers to a Report, with intervals and floors
fitting.py      validation scores -> the constants that turn candidates into moments
"""
