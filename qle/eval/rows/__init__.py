"""Heads that score every row, measured: tracks of scores enter, a Report leaves.

    scored.py: a track beside its annotation
        --answers.py: head and floors--> frames.py | segments.py | reliability.py --report.py--> Report

scored.py        a track of scores beside the annotation that it answers
answers.py       who is measured: the head, and each floor as if it were a head
frames.py        whether rows are scored high while the query happens
segments.py      whether the moments are the windows
calibration.py   whether probabilities mean what they say; reliability.py adds intervals by video
per_query.py     the same numbers for each query text
floors.py        scores that look at no video, or at no query
report.py        all of it as a Report
fitting.py       validation scores -> the constants that turn tracks into moments
"""
