"""What looks after a cache: each file is one command of `qle cache`, or a part that several of them share.

    cache -> selection.py: which spaces and videos -> one of the tools -> a report that the command line shows

inspect.py        what a cache holds; colours.py draws the tokens of a video as colours
verify.py         whether the cache is what its records say
prune.py          lists what may go, and deletes what was listed
convert.py        another file format, number type or grid, from stored tokens
merge.py          several caches into one
relink.py         where films lie that have moved, found by what they hold
pack.py           many short videos into few arrays
relink.py         films that have moved, found by what they hold
interchange.py    feature files of other tools into a space, and back; feature_files.py reads and writes them
rewrite.py        one committed video as the same rows in another form
removal.py        deletes a video so that it is never half there
selection.py      which spaces and videos a tool works on, and how it tells how far it is
trials.py         whether a file system keeps the promises that a cache needs, for `qle doctor`
"""
