"""The QLE head: attention of patch tokens to words gives a relevance map, whose sum is the score of a row.

    tokens of a row --stem.py: a cell sees its neighbours--> patches --guided.py: patches listen to words--> map -> raw logit
    raw logits and features of a whole video --a mixer over time (qle/nn/temporal)--> refined logits

head.py     the head: `read_rows` looks at each row alone, `refine` mixes over time
stem.py     a cell and its eight neighbours
guided.py   one layer of language-guided attention
presence.py whether a query happens anywhere in the rows that are seen
"""
