"""Tokens on disk: one folder a space, in it one committed video after the other. No torch here.

    writing   create_space (spaces.py) -> claim (claims.py) -> attempt (attempts.py) -> rows (writer.py)
        -> commit record, rename
    reading   open_cache (reader.py) -> Space -> Video -> rows of mapped files (windows.py) -> numpy arrays
    planning  wanted videos -> states.py, from the index and stat calls alone: done, stale, damaged, failed, claimed, pending

layout.py       names and paths of everything in a cache
handles.py      folders and files below a space, reached without following links
records.py      the JSON records: spaces, commits, errors
spaces.py       a space as its writers see it, made once by whoever comes first
claims.py       who is working on which video
attempts.py     the temp folder of an attempt, and what a later attempt keeps of it
writer.py       the one commit protocol, for both formats
reader.py       the public way in: `qle.open_cache(...)`
windows.py      rows of many videos into one buffer
packs.py        many short videos in few arrays
index.py        the commit records of a space as one table
states.py       what has become of each wanted video
sources.py      fingerprints of video files, so that a changed one is noticed
integrity.py    whether files are still what their record says
plausible.py    whether what a record claims can be true
leftovers.py    what killed commands left in a space
differences.py  in what two descriptions of spaces differ
files/          the two kinds of files that hold rows
tools/          what looks after a cache: `qle cache ...`
"""
