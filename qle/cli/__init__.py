"""The command line: one file a command. Each parses, builds a request, calls one function and shows the result.

    words typed -> app.py -> the function of a command -> a request -> the library
        -> console.py, progress.py (results on stdout, the rest on stderr) -> ending.py (the exit code)

app.py          the program `qle`: which commands there are
extract.py, train.py, eval.py, localize.py, explain.py, search.py   the main job, in the order of a project
demo.py         `qle demo`: the main job on made-up videos
cache/          `qle cache ...`: inspect, verify, convert, merge, prune, pack, relink, import, export
checkpoint.py   `qle checkpoint ...`: official weights in and out
prepare/        `qle prepare ...`: annotations of datasets, words, made-up videos
arguments.py    what every argument must be before a command sees it
doctor.py       `qle doctor`; checks.py finds out what it shows about this machine
options.py      options that mean the same in every command
console.py      what a user sees: results, tables, notes. The only file that imports rich
progress.py     how a job gets on, as a line that changes
ending.py       how the program ends: messages of errors, exit codes, pipes that close
"""
