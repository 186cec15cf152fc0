"""From queries and videos to moments, files, pictures and a report: `qle localize`.

    LocalizeRequest
        --sources.py: cached videos, or files that are extracted (uncached.py)--> an Answerer of qle/tasks --> Prediction ...
        --> moment_files.py (table, JSON, JSONL, CSV, VTT) | pictures.py (maps as PNG) | page.py (the report) | film.py

run.py            the whole command: queries over videos, with a trained run
request.py        what is asked, and what is answered
query_files.py    queries from the command line or from a file
sources.py        where the videos come from
backbone_check.py whether the backbones that uncached videos need are to be had
uncached.py       videos that the space does not hold yet: extracted exactly as the space was
moment_files.py   moments as text, for people and for programs
pictures.py       frames of the film with their maps
page.py           the report page, and how far its scores may be trusted
film.py           a film with the maps painted on
"""
