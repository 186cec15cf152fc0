"""Search of a whole corpus: which videos is a query about, and when does it happen in them?

pooled.py, pooled_update.py   frames of every video of a space, mapped: the index that makes 100,000 videos quick
coarse.py                     one unit vector a video, of one retriever, for a shortlist
videos.py                     stage 1: shortlist, then exact similarity
moments.py                    stage 2: moments in the best videos
fusion.py                     both scores as one, weights fitted on validation
run.py                        all of it for one request; result_files.py writes the result
"""
