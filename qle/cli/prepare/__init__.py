"""The commands below `qle prepare`: annotations of datasets, words of queries, made-up videos.

    files of a dataset -> a reader (qle/data/readers) -> annotations -> train.jsonl, val.jsonl, test.jsonl

surgical.py     surgical datasets, your own tables of intervals, made-up videos
benchmarks.py   benchmarks of moments, highlights and text-to-video retrieval
files.py        whole files made out of annotations: summaries of videos, formats of other tools
words.py        published features of queries as a text encoder
options.py      the options that they share, and how the result is shown
"""
