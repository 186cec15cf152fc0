"""Decode once, forward once, write once: from video files to committed tokens.

    ExtractRequest -> plan.py: videos -> launch.py: a process a device -> device.py -> engine/ -> decode/ (processes) -> cache

run.py            `qle extract` from request to summary
request.py        everything that a user may ask
plan.py           paths that the user named -> videos with keys
launch.py         one process for each device, over one list of work
device.py         backbones on one device, what is missing in their spaces, and an engine over the list
engine/           videos of one device in flight: clips, batches, tokens, commits
decode/           video files to frames, in processes that may die
sampling.py       which frame each row describes, and how a decoder gets there
target.py         one backbone with its space
tokens.py         what a backbone gives -> what the cache stores
respec.py         the description of a space read backwards, so that a new video is extracted in the same way
estimate.py       `--dry-run`: what a run would cost
progress.py       what a run says of itself
source_frames.py  the frames that rows describe, fetched again for reports
"""
