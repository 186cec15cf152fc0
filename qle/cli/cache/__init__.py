"""The commands of `qle cache`. Each parses, calls one function of qle/cache, and shows the result.

    words typed -> app.py -> the function of a command -> qle/cache/tools -> a report -> qle/cli/console.py

app.py        which commands there are, in the order of the help
looking.py    inspect, verify: commands that change nothing
changing.py   convert, merge, prune, pack, relink
exchange.py   import, export: feature files of other programs
options.py    the options that they share, and how a report is shown

Nothing heavy is imported before a command needs it: `qle --help` comes through here too.
"""
