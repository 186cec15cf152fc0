"""qle: Query, Localize, Explain. Find what you can describe in words in long videos, and see why.

    video -> tokens (once, cached) -> a trained head + words -> moments, or "absent" -> report with maps

The parts, from the one that everybody may use to the one that uses all; none imports a part below it in this list:

errors.py, types.py     every error that is raised on purpose; the values that pass between stages
durable.py, children.py files that survive a kill or a power cut; processes that never outlive their command
inputs.py               files of users and strangers, read bounded, with clear errors
config.py, runtime.py, weights.py   settings and presets; what this machine is; foreign weight files, opened safely
hub.py, outputs.py      models of the Hugging Face library; where results may be written
segments/               arithmetic of spans of time: from scores to moments
task.py                 which tasks heads are made for, and where the code of each stands
cache/                  tokens on disk: writing, reading, looking after them
text/, backbones/, nn/  encoders of queries; encoders of frames; layers and losses that heads share
data/                   annotations of datasets, and what every kind of training reads from the cache
heads/                  what is trained
extract/                video files -> committed tokens
runs/                   trained heads on disk
train/, eval/           training; metrics and reports
tasks/                  what differs from task to task: batches, training, scoring, answering, evaluation
explain/, compat/, synthetic/   why an answer was given; official checkpoints; made-up videos and the demo
localize/               queries and videos -> moments, files, pictures, a report
search/                 the same over a whole corpus
cli/, __main__.py       the command line
presets/                settings of published and of our own trainings, as TOML

Importing this package loads neither torch nor a video library.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from qle.cache.reader import open_cache as open_cache

__all__ = ["__version__", "open_cache"]


def __getattr__(name: str) -> Any:
    if name == "open_cache":
        from qle.cache.reader import open_cache

        return open_cache
    raise AttributeError(f"module 'qle' has no attribute {name!r}")
