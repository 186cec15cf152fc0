"""Why an answer was given: rows that speak for it, where in the picture, and whether that is true. Nothing here decodes.

    a prediction --evidence.py--> the rows that speak most, with their maps --attribution.py--> which rows moved the score
                 --page/, pictures.py--> one HTML file
    a run + masks --check.py, faithfulness.py--> whether the maps are true

explained.py      a prediction together with what supports it
evidence.py       chooses the rows that speak most, and reads their maps
attribution.py    integrated gradients through the temporal mixer
maps.py           relevance maps as numbers: cells, scales, likeness
overlay.py        maps painted over frames
best_rows.py      which rows of each moment speak most, apart from one another
pictures.py       frames and maps as files and inside a page
page/             the report page
check.py          `qle explain`: the film with maps, and the tests of explanations
faithfulness.py   maps against masks, against masked tokens, against other queries and untrained heads
pointing.py       whether a map points at the thing; visible.py says where the thing is
perturbation.py   tokens masked in the order of the map, and what becomes of the score
"""
