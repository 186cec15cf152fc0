"""Training heads from the cache: what is the same for every task. What differs is a `Training` of a folder of qle/tasks.

    TrainRequest -> request.py: Settings -> run.py: for each seed
        -> Training.open (data, setup.py: head, text encoder) -> steps/ -> finish.py: a run

run.py        `train_heads`: from the request to finished run folders
request.py    what the user asks, and the settings that it comes down to
config.py     the settings `train.*`
training.py   the interface of what differs from task to task
setup.py      what every training is built from
steps/        the loop: batches in, a trained model out, killed anywhere
finish.py     constants fitted on validation, and the run written down
folder.py     whose a run folder is, and whether the same is asked now as when it was begun
sides.py      training without anything that happens, or that does not, is refused
seeds.py      several seeds at once, a process each; seed_worker.py is such a process from inside
progress.py, summary.py   what a training says while it runs, and when it ends
"""
