"""One device: rows of many videos become clips, batches, tokens, and committed videos.

    worklist.py: next video -> opening.py: rows, writer, ranges -> decode processes -> assembly.py, clips.py: batches
        -> stages.py: forward (device), write (disk) -> commit record

engine.py     the loop that moves things on; nothing slow happens in it
worklist.py   which video is next, among several processes and machines
opening.py    a probed video becomes rows, a writer and clips for each backbone, and ranges for the decoders
job.py        one video in flight
assembly.py   frames in any order -> whole clips -> batches of constant shape
clips.py      which rows stand together in a forward pass, and which of them are kept
stages.py     the two threads behind the loop: forward and write
mailbox.py    the bounded queues between threads
"""
