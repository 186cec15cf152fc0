"""A trained head on disk: its record, its weights, and the spaces of a cache that it can read.

    run folder --record.py: config.json--> RunRecord --load.py--> head and text encoder
        --spaces.py, videos.py--> videos it can read

record.py   what a run folder holds, and everything that config.json says
load.py     from the folder to a head with its words, ready to score
spaces.py   the spaces of the cache that the run was trained on, found by what their numbers mean
videos.py   the cached videos that all of these spaces hold
"""
