"""Training batches of heads that answer with spans: an item is a window of clips and one query.

    streams (qle/data/streams) --reading.py, pack.py: all clips packed once--> items.py
        --batching.py: which together--> loader.py
        <-- targets.py: what is true of each, drawn anew in every epoch      <-- words.py: the words of its query

config.py      the settings `data.*`
loader.py      the batches, one after the other
items.py       the pairs of video and query, and where their clips lie
batching.py    which items stand in one batch, and to how many clips they are padded
reading.py     the clips of each video, every stream in its columns
pack.py        clips of all videos back to back, and batches gathered out of them
words.py       every distinct query of a frozen encoder, encoded and packed once
targets.py     moments, relevant clips, saliency, pairs of clips in order
negatives.py   for each item another one whose query does not happen in its video
draws.py       random numbers that depend on seed, epoch and item alone
"""
