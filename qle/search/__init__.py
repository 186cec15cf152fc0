"""Search of a whole corpus: which videos is a query about, and when does it happen in them?

    queries --coarse.py: a shortlist--> videos.py: exact similarity, the best videos --moments.py--> moments in them
        --fusion.py--> one list

request.py           what is asked, and what is answered
run.py               all of it for one request
pooled.py            frames of every video of a space, mapped: the index that makes 100,000 videos quick
pooled_update.py     makes that index, and brings it up to date
coarse.py            one unit vector a video, of one retriever, for a shortlist
videos.py            stage 1: shortlist, then exact similarity
moments.py           stage 2: moments in the best videos
fusion.py            both scores as one, with weights fitted on validation
result_files.py      the result as text
evaluation.py        the search measured: `qle eval --protocol corpus`
"""
