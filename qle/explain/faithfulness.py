"""Are the explanations true? Maps against masks, against masking of tokens, against other queries and untrained heads.

    trained head + annotations with masks or boxes -> measures, each beside what a guess reaches

* pointing: is the map high where the thing is? (pointing.py; beside it the centre, any place, and heads with fresh weights)
* masking: does the score depend on the cells that the map calls relevant? (perturbation.py; beside it random and inverse order)
* swap: does another query give another map of the same picture? Does another picture give another map for the same query?
* fresh weights: does the map depend on what was learned at all? (after Adebayo et al., Sanity Checks for Saliency Maps, 2018)

Intervals are bootstrapped over videos.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from qle.cache.reader import Space, Video
from qle.errors import AnnotationError, CheckpointError
from qle.eval.bootstrap import interval, mean_draws, video_draws
from qle.explain.maps import Region, spearman
from qle.explain.perturbation import perturb
from qle.explain.pointing import point
from qle.explain.visible import Visible
from qle.heads.rows import RowHead
from qle.tasks.rows.scoring import RowScorer
from qle.text.base import Words
from qle.types import OnProgress

NUM_SWAPS = 3
"""Other queries that are asked about each row."""
NUM_RESAMPLES = 1000
FILL_ROWS = 8
"""Rows of each video that the mean token is taken from."""
FILL_VIDEOS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One line of the report."""

    name: str
    value: float
    low: float | None
    high: float | None
    """95 % interval over videos."""
    floors: Mapping[str, float]
    """What guesses reach, by name."""
    better: Literal["higher", "lower"]
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Faithfulness:
    """What was found."""

    num_rows: int
    num_annotations: int
    num_videos: int
    measures: tuple[Measure, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def measure(self, name: str) -> Measure:
        return next(measure for measure in self.measures if measure.name == name)


@dataclass(frozen=True, slots=True)
class _Line:
    """How a measure is made out of the columns that were recorded for each row."""

    name: str
    column: str
    floors: Mapping[str, str]
    better: Literal["higher", "lower"]
    meaning: str


_LINES = (
    _Line("pointing", "near", {"centre": "near_centre", "random": "near_random", "fresh weights": "near_fresh"}, "higher",
          "the middle of the highest cell lies on the thing, or within 15 pixels of it (as published)"),
    _Line("pointing, strict", "hit", {"centre": "hit_centre", "random": "hit_random", "fresh weights": "hit_fresh"}, "higher",
          "the middle of the highest cell lies on the thing"),
    _Line("pointing, refined", "refined", {"centre": "hit_centre", "random": "hit_random", "fresh weights": "refined_fresh"},
          "higher", "the centre of positive relevance in the highest cell and its neighbours lies on the thing"),
    _Line("pointing, cell", "cell", {"centre": "cell_centre", "random": "cell_random", "fresh weights": "cell_fresh"}, "higher",
          "the highest cell touches the thing"),
    _Line("energy", "energy", {"random": "hit_random", "fresh weights": "energy_fresh"}, "higher",
          "share of positive relevance on the thing"),
    _Line("rank", "rank", {"random": "hit_random", "fresh weights": "rank_fresh"}, "higher",
          "share of the k highest pixels on the thing of k pixels"),
    _Line("pixel AUROC", "pixel_auroc", {"fresh weights": "pixel_auroc_fresh"}, "higher",
          "a pixel of the thing is higher than one beside it; a guess: 0.5"),
    _Line("deletion", "deletion", {"random": "random", "inverse": "insertion"}, "lower",
          "mean logit while cells are masked in decreasing relevance"),
    _Line("insertion", "insertion", {"random": "random", "inverse": "deletion"}, "higher",
          "mean logit while cells are filled in decreasing relevance"),
    _Line("beats random", "beats_random", {"guess": "half"}, "higher",
          "share of rows on which deletion is below random order"),
    _Line("query swap", "swap", {"same query": "one"}, "lower",
          "Spearman of the maps of two queries about one row"),
    _Line("picture swap", "picture_swap", {"same picture": "one"}, "lower",
          "Spearman of the maps of one query on rows of two videos"),
    _Line("fresh weights", "fresh", {"same weights": "one"}, "lower",
          "|Spearman| of the map with that of an untrained head"),
)  # fmt: skip


@torch.no_grad()
def faithfulness(
    scorer: RowScorer,
    space: Space,
    targets: Sequence[Visible],
    *,
    fresh: Sequence[RowHead],
    region_of: Callable[[Video], Region],
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Faithfulness:
    """`targets`: what is to be seen where; `fresh`: heads of the same config with weights that were never trained."""
    targets = [target for target in targets if len(target.rows)]
    if not targets:
        raise AnnotationError(
            "no row on which the thing of a query is marked: faithfulness needs annotations with masks or boxes\n"
            "qle prepare synthetic makes such a set"
        )
    rng = np.random.default_rng(seed)
    fill = mean_token(scorer, space, sorted({target.video for target in targets})[:FILL_VIDEOS])
    records: list[dict[str, float]] = []
    owners: list[str] = []
    for done, target in enumerate(targets):
        if on_progress is not None:
            on_progress(done, len(targets), target.annotation.query)
        video = space.video(target.video)
        probe = _AnnotationChecks(scorer, video, target, _swaps(target, targets, rng))
        other = _elsewhere(scorer, space, done, targets)
        records += probe.records(region_of(video), fresh, fill, other, rng)
        owners += [target.video] * len(target.rows)
    return _summary(records, owners, len(targets), seed)


def mean_token(scorer: RowScorer, space: Space, keys: Sequence[str]) -> Tensor:
    """(dim,): the mean patch token over rows of these videos."""
    total, count = None, 0
    for key in keys:
        video = space.video(key)
        rows = np.unique(np.linspace(0, scorer.num_rows(video) - 1, FILL_ROWS).round().astype(int))
        tokens, usable = scorer.tokens_of(video, rows)
        patches = tokens["patch"][usable].flatten(0, 2).double()
        total = patches.sum(0) if total is None else total + patches.sum(0)
        count += len(patches)
    if total is None or not count:
        raise AnnotationError("none of the videos has a row with finite tokens")
    return (total / count).float()


class _AnnotationChecks:
    """All checks of one annotation."""

    def __init__(self, scorer: RowScorer, video: Video, target: Visible, swaps: Sequence[str]) -> None:
        self._head, self._target = scorer.head, target
        source = video.record.source
        self._frame = (source.width, source.height) if source.width and source.height else None
        self.tokens, self._usable = scorer.tokens_of(video, target.rows)
        self._words = scorer.text.encode((target.annotation.query, *swaps)).to(scorer.device)
        self._first = _select(self._words, 0)
        self._maps = _maps(self._head, self.tokens, self._words)

    def records(
        self,
        region: Region,
        fresh: Sequence[RowHead],
        fill: Tensor,
        other: Mapping[str, Tensor],
        rng: np.random.Generator,
    ) -> list[dict[str, float]]:
        """One of each usable row, the others hold NaN."""
        untrained = [_maps(head, self.tokens, self._first)[0] for head in fresh]
        elsewhere = _maps(self._head, other, self._first)[0, 0]
        records: list[dict[str, float]] = []
        for number, mask in enumerate(self._target.masks):
            if not bool(self._usable[number]):
                records.append({})
                continue
            relevance = self._maps[0, number]
            record = asdict(point(relevance, mask, region, self._frame))
            guesses = [asdict(point(maps[number], mask, region, self._frame)) for maps in untrained]
            record |= {f"{name}_fresh": _mean([guess[name] for guess in guesses]) for name in record if "_" not in name}
            record["pixel_auroc_fresh"] = _mean([guess["pixel_auroc"] for guess in guesses])
            record |= self._perturbed(number, relevance, fill, rng)
            record["swap"] = _mean([spearman(relevance, swapped) for swapped in self._maps[1:, number]])
            record["picture_swap"] = spearman(relevance, elsewhere)
            record["fresh"] = _mean([abs(spearman(relevance, maps[number])) for maps in untrained])
            records.append(record)
        return records

    def _perturbed(
        self, number: int, relevance: np.ndarray, fill: Tensor, rng: np.random.Generator
    ) -> dict[str, float]:
        row = {name: stream[number : number + 1] for name, stream in self.tokens.items()}
        perturbed = perturb(self._head, row, self._first, relevance, fill=fill, rng=rng)
        return asdict(perturbed) | {"beats_random": float(perturbed.deletion < perturbed.random)}


def _maps(head: RowHead, tokens: Mapping[str, Tensor], words: Words) -> np.ndarray:
    relevance = head.read_rows(tokens, words, with_maps=True).relevance_map
    if relevance is None:
        raise CheckpointError(f"head {head.name} has no relevance maps: there is nothing to test")
    maps: np.ndarray = relevance.float().cpu().numpy()
    return maps


def _select(words: Words, number: int) -> Words:
    return words.select(torch.tensor([number], device=words.mask.device))


def _swaps(target: Visible, targets: Sequence[Visible], rng: np.random.Generator) -> list[str]:
    """Queries of the data that mean something else."""
    own = target.annotation.concept_key
    others = sorted({other.annotation.query for other in targets if other.annotation.concept_key != own})
    chosen = rng.permutation(len(others))[:NUM_SWAPS]
    return [others[number] for number in chosen]


def _elsewhere(scorer: RowScorer, space: Space, number: int, targets: Sequence[Visible]) -> dict[str, Tensor]:
    """A row of the next target of another video; of the same target, its last, where there is one video only."""
    target = targets[number]
    following = (*targets[number + 1 :], *targets[:number])
    other = next((candidate for candidate in following if candidate.video != target.video), target)
    return scorer.tokens_of(space.video(other.video), other.rows[-1:])[0]


def _summary(
    records: Sequence[Mapping[str, float]], owners: Sequence[str], num_annotations: int, seed: int
) -> Faithfulness:
    videos, owner = np.unique(np.asarray(owners), return_inverse=True)
    draws = video_draws(len(videos), NUM_RESAMPLES, seed)
    constants = {"one": 1.0, "half": 0.5}

    def column(name: str) -> np.ndarray:
        return np.array([constants.get(name, record.get(name, np.nan)) for record in records], dtype=np.float64)

    measures = []
    for line in _LINES:
        values = column(line.column)
        if not np.isfinite(values).any():
            continue
        bounds = interval(mean_draws(draws, values, owner)) or (None, None)
        floors = {
            name: float(np.nanmean(column(source))) for name, source in line.floors.items() if _is_known(column(source))
        }
        measures.append(
            Measure(
                name=line.name,
                value=float(np.nanmean(values)),
                low=bounds[0],
                high=bounds[1],
                floors=floors,
                better=line.better,
                meaning=line.meaning,
            )
        )
    num_rows = sum(bool(record) for record in records)
    return Faithfulness(
        num_rows=num_rows, num_annotations=num_annotations, num_videos=len(videos), measures=tuple(measures)
    )


def _is_known(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).any())


def _mean(values: Sequence[float]) -> float:
    """The mean of the values that exist; NaN where there are none."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
