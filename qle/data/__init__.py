"""Annotations of datasets, and what every kind of training reads from the cache. Nothing here decodes or runs a backbone.

    files of a dataset --readers/--> Annotation --lookup.py--> videos of a space --rows.py--> rows at the rate of the run
                                          `--writers/--> files of a dataset
    rows, or streams of clips (streams/) --loading/--> batches, which each task makes in its own folder (qle/tasks/*/batches)

annotations.py   one query about one video, and when it happens there
readlog.py       what a reader tells besides annotations: wrong rows, and what it changed
readers/         one file a dataset: its files to annotations
writers/         the way back
lookup.py        which committed video an annotation speaks of
rows.py          which cached rows stand for a video at one sample rate
masks.py         pixel masks of annotated things
negatives.py     which queries happen in a stretch of a video, and which surely do not
pairs.py         which texts are true of which videos
streams/         several cached streams as one feature vector a clip
loading/         where the tokens lie while they are trained on
summaries/       sentences about whole videos out of sentences about their moments
"""
