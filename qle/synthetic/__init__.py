"""Made-up endoscopy-like videos whose every event is known: what happens, when, where, and in which words one may ask.

    vocabulary (concepts, wordings) -> script (events, times, places) -> queries (present and absent) -> film (frames, masks)

vocabulary.py    what can be asked, and in which words
script.py        what happens in one video, when and where
queries.py       the questions about a script: what happens, and what nearly does
scene.py         the place: walls, folds, light
things.py, motions.py, distractors.py   things on the wall; what acts; what passes and means nothing
sprites.py       small pictures that are drawn into a frame
film.py          a script drawn: frames, and where its events can be seen
annotate.py      a script as annotations, boxes and masks
pool.py          made-up videos by several processes
write.py         all of it as files: `qle prepare synthetic`
demo.py          `qle demo`: the main job from end to end on such videos

All but write.py, pool.py and demo.py is a pure function of a seed: numpy and PIL only, no torch, no video library.
"""
