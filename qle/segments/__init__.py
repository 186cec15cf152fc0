"""Arithmetic of spans of time: what a head says enters, moments leave. No torch.

    ScoreTrack (a score for every row) --tracks.py: smoothing, calibration, thresholds--> moments, presence
    Candidates (spans with scores)
        --ranked_windows.py: one list a video--> ranked.py: calibration, suppression--> moments, presence

spans.py            spans, the rows that they cover, overlap
tracks.py           score tracks to moments
ranked_windows.py   candidates of overlapping windows -> candidates of one video
ranked.py           candidates to ranked moments
"""
