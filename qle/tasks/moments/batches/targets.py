"""What is true of a batch of items: moments, relevant clips, graded saliency, pairs of clips in order. No torch.

    Corpus -> Labels (once) -> windows of a batch -> TargetArrays of a batch

Times are compared with the edges of the clips, by the rule of evaluation (segments.mask_of): a clip is relevant when moments
cover half of it, and no moment is without a clip. A moment that a window cuts, or the end of what can be seen, is the part
inside, unless hardly anything is left of it: then it has neither span nor clip. Spans are fractions of the window's own extent.

Raters: the mean of their scores, so scaled that three who give 4 make 12, and twenty who give 1 to 5 (TVSum) make 0 to 12.
Pairs for the margin loss, after Moment-DETR: the first from the extremes of the raters inside the moments, the others one
clip inside and one outside; where only ratings are known, two clips that were rated differently. All are drawn anew in every
epoch, by the numbers of the item (draws.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qle.data.annotations import Annotation
from qle.segments.spans import mask_of, rows_of, spans_of
from qle.tasks.moments.batches import draws
from qle.tasks.moments.batches.config import MomentDataConfig
from qle.tasks.moments.batches.draws import pick, pick_number
from qle.tasks.moments.batches.items import Corpus

TOP_SALIENCY = 12.0
RATER_RANGE = 4.0
"""From the lowest to the highest score that a rater can give."""
LEAST_PART = 0.5
"""A moment must reach into a window by this part of itself, or of a clip."""
Seconds = float | np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemWindows:
    """The windows of one batch."""

    items: np.ndarray
    """(items,) int64"""
    first: np.ndarray
    """(items,) int64: first clip."""
    count: np.ndarray
    """(items,) int64: clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetArrays:
    """As MomentTargets."""

    spans: np.ndarray
    """(targets, 2) float32: (centre, width), item after item."""
    counts: tuple[int, ...]
    relevant: np.ndarray
    saliency: np.ndarray
    better: np.ndarray
    worse: np.ndarray
    pair_mask: np.ndarray


class _Ragged:
    """Rows of many items back to back."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self.begin = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        self.rows = np.concatenate(parts)

    def of(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows of these items, and for each the place of its item in `items`."""
        counts = self.begin[items + 1] - self.begin[items]
        owner = np.repeat(np.arange(len(items)), counts)
        inside = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.rows[inside + np.repeat(self.begin[items], counts)], owner


class ItemLabels:
    """Targets of any window of any item."""

    def __init__(self, corpus: Corpus, config: MomentDataConfig, seed: int) -> None:
        self._corpus, self._config, self._seed = corpus, config, seed
        self._length = config.window_clips
        self._num_clips = corpus.num_clips[corpus.video]
        edges = [corpus.edges_s[video] for video in corpus.video.tolist()]
        self._edges = _Ragged(corpus.edges_s)
        pairs = list(zip(corpus.annotations, edges, strict=True))
        self._moments = _Ragged(
            [np.array(annotation.windows, dtype=np.float64).reshape(-1, 2) for annotation in corpus.annotations]
        )
        self._runs = _Ragged([_relevant_runs(annotation, edge) for annotation, edge in pairs])
        lowest = _lowest_score(corpus.annotations)
        has_raters = config.saliency == "raters"
        self._ratings = _Ragged([_rated_clips(*pair, lowest) if has_raters else np.zeros(0) for pair in pairs])
        self._only_rated = np.array([not annotation.is_labelled for annotation in corpus.annotations])

    def windows(self, items: np.ndarray, draw: np.ndarray) -> ItemWindows:
        """The window of each item: the whole video, or a window that is drawn by the rows of `draw`."""
        first = np.zeros(len(items), dtype=np.int64)
        for number in np.flatnonzero(self._num_clips[items] > self._length).tolist():
            first[number] = self._draw_window(int(items[number]), draw[number])
        return ItemWindows(items=items, first=first, count=np.minimum(self._num_clips[items], self._length))

    def targets(self, windows: ItemWindows, mask: np.ndarray, draw: np.ndarray, epoch: int) -> TargetArrays:
        """mask: (items, clips) bool, the clips that the head sees; a window without any has no moment."""
        relevant = self._relevant(windows, mask.shape[1]) & mask
        ratings = self._rated(windows, mask.shape[1])
        rated = ~np.isnan(ratings) & mask
        saliency = np.where(rated, ratings, relevant).astype(np.float32)
        better, worse, pair_mask = self._pairs(windows.items, relevant, saliency, rated, mask, draw)
        spans, counts = self._spans(windows, np.asarray(mask.any(axis=1)), epoch)
        return TargetArrays(
            spans=spans, counts=counts, relevant=relevant, saliency=saliency, better=better, worse=worse,
            pair_mask=pair_mask,
        )  # fmt: skip

    def _draw_window(self, item: int, draw: np.ndarray) -> int:
        """First clip of a window: anywhere, or so that a moment of the item is inside (a long one: at least half of the
        window is)."""
        last = int(self._num_clips[item]) - self._length
        moments = self._moments.rows[self._moments.begin[item] : self._moments.begin[item + 1]]
        low, high = 0, last
        if len(moments) and draw[draws.ANYWHERE] >= self._config.empty_share:
            start_s, end_s = moments[pick_number(len(moments), draw[draws.MOMENT])]
            rows = rows_of(start_s, end_s, self._corpus.edges_s[int(self._corpus.video[item])])
            if rows.stop - rows.start <= self._length:
                low, high = rows.stop - self._length, rows.start
            else:
                low, high = rows.start - self._length // 2, rows.stop - (self._length + 1) // 2
        low, high = min(max(low, 0), last), min(max(high, 0), last)
        return low + pick_number(high - low + 1, draw[draws.POSITION])

    def _relevant(self, windows: ItemWindows, length: int) -> np.ndarray:
        """(items, length) bool. Runs are disjoint, so their ends can be added up."""
        runs, owner = self._runs.of(windows.items)
        inside = (
            np.clip(runs - windows.first[owner, None], 0, windows.count[owner, None]) + (owner * (length + 1))[:, None]
        )
        size = len(windows.items) * (length + 1)
        steps = np.bincount(inside[:, 0], minlength=size) - np.bincount(inside[:, 1], minlength=size)
        return np.cumsum(steps).reshape(-1, length + 1)[:, :length] > 0

    def _rated(self, windows: ItemWindows, length: int) -> np.ndarray:
        """(items, length) float32, NaN where nobody rated."""
        begin, end = self._ratings.begin[windows.items], self._ratings.begin[windows.items + 1]
        if not (end > begin).any():
            return np.full((len(windows.items), length), np.nan, dtype=np.float32)
        clip = np.arange(length)
        is_there = (clip < windows.count[:, None]) & (end > begin)[:, None]
        row = np.where(is_there, (begin + windows.first)[:, None] + clip, 0)
        return np.where(is_there, self._ratings.rows[row], np.float32(np.nan))

    def _spans(self, windows: ItemWindows, is_seen: np.ndarray, epoch: int) -> tuple[np.ndarray, tuple[int, ...]]:
        """Cut to the windows, `max_moments` of an item at most."""
        moments, owner = self._moments.of(windows.items)
        begin = self._edges.begin[self._corpus.video[windows.items]] + windows.first
        start_s, end_s = self._edges.rows[begin], self._edges.rows[begin + windows.count]
        extent_s = np.maximum(end_s - start_s, np.finfo(np.float64).tiny)
        cut = np.clip(moments, start_s[owner, None], end_s[owner, None])
        inside_s = cut[:, 1] - cut[:, 0]
        is_enough = _is_enough(inside_s, moments[:, 1] - moments[:, 0], (extent_s / windows.count)[owner])
        kept = (inside_s > 0) & is_enough & is_seen[owner]
        counts = np.bincount(owner[kept], minlength=len(windows.items))
        for number in np.flatnonzero(counts > self._config.max_moments).tolist():
            mine = np.flatnonzero(kept & (owner == number))
            chance = draws.generator(self._seed, epoch, draws.MOMENTS, int(windows.items[number]))
            kept[chance.choice(mine, len(mine) - self._config.max_moments, replace=False)] = False
            counts[number] = self._config.max_moments
        edges = (cut[kept] - start_s[owner[kept], None]) / extent_s[owner[kept], None]
        spans = np.stack([(edges[:, 0] + edges[:, 1]) / 2, edges[:, 1] - edges[:, 0]], axis=1)
        return spans.astype(np.float32), tuple(counts.tolist())

    def _pairs(
        self, items: np.ndarray, relevant: np.ndarray, saliency: np.ndarray, rated: np.ndarray, mask: np.ndarray,
        draw: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        """(items, pairs) each: better, worse, and whether there is such a pair."""
        ends = draw[:, draws.PAIRS :].reshape(len(items), -1, 2)
        (better, is_inside), (worse, is_outside) = pick(relevant, ends[..., 0]), pick(mask & ~relevant, ends[..., 1])
        pair_mask = np.repeat((is_inside & is_outside)[:, None], ends.shape[1], axis=1)
        if rated.any():
            only_rated = self._only_rated[items]
            pool, has_ratings = rated & (relevant | only_rated[:, None]), rated.any(axis=1)
            better[has_ratings, 0], worse[has_ratings, 0], pair_mask[has_ratings, 0] = (
                part[has_ratings] for part in _extremes(pool, saliency, ends[:, 0])
            )
            if only_rated.any():
                better[only_rated, 1:], worse[only_rated, 1:], pair_mask[only_rated, 1:] = (
                    part[only_rated] for part in _ordered(pool, saliency, ends[:, 1:])
                )
        return better, worse, pair_mask


def _extremes(pool: np.ndarray, saliency: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(items,) each: one of the highest and one of the lowest clips of the pool, and whether they differ."""
    highest = np.where(pool, saliency, -np.inf).max(axis=1)
    lowest = np.where(pool, saliency, np.inf).min(axis=1)
    better, _ = pick(pool & (saliency == highest[:, None]), ends[:, 0])
    worse, _ = pick(pool & (saliency == lowest[:, None]), ends[:, 1])
    return better, worse, highest > lowest


def _ordered(pool: np.ndarray, saliency: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(items, pairs) each: two clips of the pool, the higher one first, and whether they differ."""
    (left, is_there), (right, _) = pick(pool, ends[..., 0]), pick(pool, ends[..., 1])
    left_score, right_score = (np.take_along_axis(saliency, side, axis=1) for side in (left, right))
    better = np.where(left_score > right_score, left, right)
    return better, left + right - better, (left_score != right_score) & is_there[:, None]


def _is_enough(inside_s: Seconds, moment_s: Seconds, clip_s: Seconds) -> np.ndarray:
    """What is left of a moment is a moment."""
    return np.asarray(inside_s >= LEAST_PART * np.minimum(moment_s, clip_s) * (1 - 1e-9))


def _relevant_runs(annotation: Annotation, edges_s: np.ndarray) -> np.ndarray:
    """(runs, 2) int64: stretches of relevant clips."""
    if not annotation.windows:
        return np.zeros((0, 2), dtype=np.int64)
    mask = mask_of(annotation.windows, edges_s)
    clip_s = edges_s[-1] / (len(edges_s) - 1)
    for start_s, end_s in annotation.windows:
        rows, inside_s = rows_of(start_s, end_s, edges_s), min(end_s, edges_s[-1]) - start_s
        if inside_s > 0 and _is_enough(inside_s, end_s - start_s, clip_s) and not mask[rows].any():
            middle_s = start_s + inside_s / 2
            mask[rows_of(middle_s, middle_s, edges_s)] = True
    numbers = np.arange(len(edges_s))
    return spans_of(mask, numbers).astype(np.int64)


def _lowest_score(annotations: Sequence[Annotation]) -> float:
    """Raters count from 0 (to 4) or from 1 (to 5); all of one training count alike."""
    highest = max(
        (np.nanmax(annotation.saliency, initial=0) for annotation in annotations if annotation.saliency is not None),
        default=0,
    )
    return 1.0 if highest > RATER_RANGE else 0.0


def _rated_clips(annotation: Annotation, edges_s: np.ndarray, lowest: float) -> np.ndarray:
    """(clips,) float32 0..12, NaN where nobody rated; nothing where there are no ratings. Rated clips and those of the
    features may differ in length: then the mean of the rated ones that reach into the other."""
    if annotation.saliency is None:
        return np.zeros(0, dtype=np.float32)
    known = ~np.isnan(annotation.saliency)
    sums = np.concatenate(
        [[0], np.cumsum(np.where(known, annotation.saliency - lowest, 0).sum(axis=1, dtype=np.float64))]
    )
    counts = np.concatenate([[0], np.cumsum(known.sum(axis=1))])
    in_clips = edges_s / annotation.clip_s
    begin = np.clip(np.floor(in_clips[:-1] + 1e-6).astype(np.int64), 0, len(known))
    end = np.clip(np.maximum(np.ceil(in_clips[1:] - 1e-6).astype(np.int64), begin + 1), 0, len(known))
    held = counts[end] - counts[begin]
    mean = (sums[end] - sums[begin]) / np.where(held > 0, held, 1) / RATER_RANGE * TOP_SALIENCY
    return np.where(held > 0, np.clip(mean, 0, TOP_SALIENCY), np.nan).astype(np.float32)
