"""Made-up endoscopy-like videos whose every event is known: what happens, when, where, and in which words one may ask.

    vocabulary (concepts, wordings) -> script (events, times, places) -> queries (present and absent) -> film (frames, masks)

Everything is a pure function of a seed: numpy and PIL only, no torch, no video library (`qle/synthetic/write.py` encodes).
"""
