"""Training batches of heads that rank videos: pairs of a text and a video of which it is true.

    annotations --qle/data/pairs.py--> pairs --order.py: which in which batch--> loader.py <-- frames.py, sentences.py

config.py      the settings `data.*`
loader.py      the batches; no video stands twice in one
order.py       which pairs an epoch sees, in which batches
frames.py      the few frame vectors that stand for a whole video
sentences.py   the sentence vectors of the texts
"""
