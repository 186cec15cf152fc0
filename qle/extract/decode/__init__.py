"""From a video file to frames in shared memory, in processes that may crash or hang without harm.

    pool.py (in the engine) --tasks.py through a pipe--> process.py | worker.py (in the process)
        --probe.py, decoder.py--> frames in a ring

pool.py      the decode processes, seen from the engine
process.py   one decode process, seen from the parent
worker.py    one decode process, seen from inside
tasks.py     what passes between them: tasks, events, the ring of pixels
probe.py     what a video file holds: key frames and exact times
decoder.py   the interface of decoders, and which one is chosen
pyav.py      the reference decoder
doctor.py    what the decoders of this machine can do
write.py     frames to a small mp4, for the demo and the tests
"""
