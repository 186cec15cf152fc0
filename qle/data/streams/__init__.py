"""Several cached streams of a video as one feature vector a clip: what heads that answer with spans see.

    names of streams --opening.py--> parts of a recipe --features.py--> clips of equal length --windows.py--> windows of clips

recipe.py      how the features of a clip are made: saved with the run, and used again by localize
opening.py     which streams of which spaces the names mean, and the same video in each of them
clip_grid.py   which rows make which clip
lengths.py     streams that end at different times: trimmed, or another cut of the film
features.py    rows of the cache -> the features of every clip of a video
windows.py     the windows of clips that a head sees, with temporal endpoints
"""
