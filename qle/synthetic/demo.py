"""The main job from end to end on videos that are made for it: the commands that a user would type, and what came out.

    prepare synthetic -> extract -> train-heads -> eval (test, composition, paraphrase) -> explain -> localize -> aims

Nothing is called here that the command line does not offer: each stage is one line, shown before it runs, and its numbers
are read from the files that it writes. So the demo goes on where a killed one stopped, exactly as its commands do.
What is trained with stands in presets/qle/demo.toml, what is made and extracted in the constants below.
"""

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qle.data.annotations import Annotation, read_annotations
from qle.errors import AnnotationError, ConfigError, MissingDependencyError
from qle.inputs import parse_json

NUM_TRAIN, NUM_VAL, NUM_TEST, NUM_COMPOSITION = 240, 16, 24, 16
"""Videos of each split; where fewer are wanted to train on, the others shrink along."""
LEAST_VIDEOS = 2
"""Least videos of a split: intervals are over videos."""
SECONDS, FPS, SIZE = 20, 2, 224
"""A video's length, its frames a second, and pixels of a side."""
ROWS_PER_S, GRID = 1, 14
"""What is extracted."""
PRESET = "qle/demo"
NUM_KNOWN, NUM_ABSENT = 4, 2
"""Questions about one test video, of what happens there and of what does not; and one in unseen words."""
MEASURED = ("test", "composition", "paraphrase")

RunLine = Callable[[Sequence[str]], None]
Show = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """A number that the demo should reach, and where it stands."""

    name: str
    source: str
    """File of numbers: test, composition, paraphrase or pointing."""
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    """Instead of it, where less is better."""

    @property
    def goal(self) -> str:
        return f">= {self.at_least:g}" if self.at_most is None else f"<= {self.at_most:g}"

    def is_met(self, value: float) -> bool:
        """Never by a number that does not exist."""
        if self.at_most is not None:
            return value <= self.at_most
        return self.at_least is not None and value >= self.at_least


AIMS = (
    Aim(name="rows, AUROC", source="test", metric="frame.auroc", at_least=0.97),
    Aim(name="moments, R1@0.5", source="test", metric="segment.r1@0.5", at_least=0.85),
    Aim(name="rows of unseen pairs, AUROC", source="composition", metric="frame.auroc", at_least=0.9),
    Aim(name="rows in unseen words, AUROC", source="paraphrase", metric="frame.auroc", at_least=0.9),
    Aim(name="absent queries, AUROC of presence", source="test", metric="absent.presence_auroc", at_least=0.95),
    Aim(name="absent queries, false alarms at 10 % misses", source="test", metric="absent.false_alarms_at_10_misses",
        at_most=0.1),
    Aim(name="maps point at the thing (15 px)", source="pointing", metric="pointing", at_least=0.8),
    Aim(name="maps point at it strictly", source="pointing", metric="pointing, strict", at_least=0.8),
    Aim(name="maps point at it, peak refined", source="pointing", metric="pointing, refined", at_least=0.8),
)  # fmt: skip
"""On videos that were not trained on. Unseen pairs: a colour and an object never together in training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """How much of it."""

    num_videos: int = NUM_TRAIN
    """To train on."""
    steps: int | None = None
    """Steps of training; None: those of the preset."""

    def __post_init__(self) -> None:
        if self.num_videos < LEAST_VIDEOS:
            raise ConfigError(f"--videos {self.num_videos}: expected {LEAST_VIDEOS} or more")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"--steps {self.steps}: expected 1 or more")

    def share(self, whole: int) -> int:
        return min(whole, max(LEAST_VIDEOS, round(whole * self.num_videos / NUM_TRAIN)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A command, without the word qle."""

    name: str
    line: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """An aim beside what was reached."""

    aim: Aim
    value: float
    """NaN where the number does not exist."""
    interval: tuple[float, float] | None
    """95 %, over videos."""
    floors: Mapping[str, float]
    """What guesses reach."""

    @property
    def is_met(self) -> bool:
        return self.aim.is_met(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoQuestion:
    """A query about one held-out video and the true answer."""

    kind: str
    annotation: Annotation

    @property
    def truth(self) -> str:
        windows = ", ".join(f"{start_s:.1f} - {end_s:.1f} s" for start_s, end_s in self.annotation.windows)
        return f'{self.kind}: "{self.annotation.query}" is true at {windows or "no time"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What `qle demo` shows last."""

    folder: Path
    text_encoder: str
    measured: tuple[Measured, ...]
    questions: tuple[DemoQuestion, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By stage."""

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    def to_json(self) -> dict[str, Any]:
        return {
            "aims": [
                {
                    **asdict(measured),
                    "value": measured.value if measured.value == measured.value else None,
                    "is_met": measured.is_met,
                }
                for measured in self.measured
            ],
            "questions": [question.truth for question in self.questions],
            "text_encoder": self.text_encoder,
            "run": str(self.run),
            "report": str(self.report),
            "seconds": dict(self.seconds),
        }


def run_demo(folder: Path, config: DemoConfig, run_line: RunLine, show: Show) -> DemoResult:
    """Everything; `run_line` runs one command and raises where it fails, `show` prints a line between them."""
    text_encoder = best_text_encoder()
    if text_encoder == "tiny":
        show("note: without the package of minilm, words are trained from nothing, and unseen words are noise to it")
    seconds: dict[str, float] = {}

    def run(stage: Stage) -> None:
        show(f"\n$ qle {shlex.join(stage.line)}")
        started_s = time.monotonic()
        run_line(stage.line)
        seconds[stage.name] = time.monotonic() - started_s

    for stage in learning_stages(folder, config, text_encoder):
        run(stage)
    questions = choose_questions(folder)
    show(f"\nasked about {questions[0].annotation.video}, which was not trained on:")
    for question in questions:
        show(f"  {question.truth}")
    run(asking_stage(folder, questions))
    return DemoResult(
        folder=folder, text_encoder=text_encoder, measured=measured_aims(folder), questions=questions, seconds=seconds
    )


def best_text_encoder() -> str:
    """minilm where its package is installed."""
    from qle.text.minilm import minilm_folder

    try:
        minilm_folder()
    except MissingDependencyError:
        return "tiny"
    return "minilm"


def learning_stages(folder: Path, config: DemoConfig, text_encoder: str) -> list[Stage]:
    """From nothing to numbers."""
    made, cache, run = f"{folder / 'made'}", f"{folder / 'cache'}", f"{folder / 'run'}"
    numbers = {
        "train": config.num_videos, "val": config.share(NUM_VAL), "test": config.share(NUM_TEST),
        "composition": config.share(NUM_COMPOSITION), "seconds": SECONDS, "fps": FPS, "size": SIZE,
    }  # fmt: skip
    extract = {"videos": f"{made}/videos", "root": f"{made}/videos", "cache": cache, "backbone": "tiny",
               "fps": ROWS_PER_S, "grid": GRID}  # fmt: skip
    train = {"cache": cache, "annotations": f"{made}/annotations/train.jsonl", "val": f"{made}/annotations/val.jsonl",
             "preset": PRESET, "text-encoder": text_encoder, "out": run}  # fmt: skip
    if config.steps is not None:
        train["set"] = f"train.steps={config.steps}"
    stages = [
        Stage(name="prepare", line=("prepare", "synthetic", made, *_flags(numbers))),
        Stage(name="extract", line=("extract", "--retry-failed", *_flags(extract))),
        Stage(name="train-heads", line=("train-heads", *_flags(train))),
    ]
    for split in MEASURED:
        asked = {"checkpoint": run, "cache": cache, "annotations": f"{made}/annotations/{split}.jsonl",
                 "out": f"{_numbers(folder, split)}"}  # fmt: skip
        stages.append(Stage(name=f"eval {split}", line=("eval", *_flags(asked))))
    asked = {"checkpoint": run, "cache": cache, "annotations": f"{made}/annotations/test.jsonl",
             "out": f"{_numbers(folder, 'pointing')}"}  # fmt: skip
    stages.append(Stage(name="explain", line=("explain", "--faithfulness", *_flags(asked))))
    return stages


def asking_stage(folder: Path, questions: Sequence[DemoQuestion]) -> Stage:
    """The questions, asked in words."""
    queries = [part for question in questions for part in ("--query", question.annotation.query)]
    flags = {"checkpoint": folder / "run", "cache": folder / "cache", "video-id": questions[0].annotation.video}
    report = {"report": folder / "report.html"}
    return Stage(name="localize", line=("localize", *_flags(flags), *queries, *_flags(report)))


def choose_questions(folder: Path) -> tuple[DemoQuestion, ...]:
    """About the test video that the most can be asked about: what happens, what does not, and what else in unseen words."""
    known = read_annotations(folder / "made" / "annotations" / "test.jsonl")
    unseen = read_annotations(folder / "made" / "annotations" / "paraphrase.jsonl")
    count = {
        video: sum(annotation.video == video and annotation.is_present for annotation in known)
        for video in (a.video for a in known)
    }
    for video in sorted(count, key=lambda video: (-count[video], video)):
        present = [annotation for annotation in known if annotation.video == video and annotation.is_present]
        absent = [annotation for annotation in known if annotation.video == video and annotation.is_absent]
        if present and absent:
            said = [annotation for annotation in unseen if annotation.video == video and annotation.is_present]
            asked = {annotation.concept for annotation in present[:NUM_KNOWN]}
            other = [annotation for annotation in said if annotation.concept not in asked] or said
            return (
                *(DemoQuestion(kind="known words", annotation=annotation) for annotation in present[:NUM_KNOWN]),
                *(DemoQuestion(kind="never there", annotation=annotation) for annotation in absent[:NUM_ABSENT]),
                DemoQuestion(kind="unseen words", annotation=other[0]),
            )
    raise AnnotationError(f"{folder / 'made'}: in no test video something happens and something does not")


def measured_aims(folder: Path) -> tuple[Measured, ...]:
    """The aims beside the numbers that the stages wrote."""
    return tuple(_measured(aim, parse_json(_numbers(folder, aim.source).read_bytes())) for aim in AIMS)


def _measured(aim: Aim, numbers: Mapping[str, Any]) -> Measured:
    if aim.source == "pointing":
        measure = next(entry for entry in numbers["measures"] if entry["name"] == aim.metric)
        interval = None if measure["low"] is None else [measure["low"], measure["high"]]
    else:
        group, _, name = aim.metric.partition(".")
        measure = numbers["metrics"][group][name]
        interval = measure["interval"]
    return Measured(
        aim=aim,
        value=float("nan") if measure["value"] is None else measure["value"],
        interval=None if interval is None else (interval[0], interval[1]),
        floors={name.replace("_", " "): value for name, value in measure["floors"].items() if value is not None},
    )


def _numbers(folder: Path, source: str) -> Path:
    return folder / f"{source}.json"


def _flags(values: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(part for name, value in values.items() for part in (f"--{name}", str(value)))
