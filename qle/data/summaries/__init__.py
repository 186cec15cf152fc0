"""Sentences about whole videos out of sentences about their moments, as TACoS-CG has them: queries for finding videos.

    annotations -> the sentences of each video, in order of time -> a summariser, level by level
        -> annotations without windows

levels.py           how coarse a summary is, and the interface of what makes one
extractive.py       chooses from the sentences themselves, without a model
language_model.py   asks a local language model
generate.py         walks over the videos, writes, and goes on where it was killed
"""
