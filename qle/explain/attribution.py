"""Which rows moved the refined score of a moment: integrated gradients through the temporal mixer.

The relevance map explains the raw logit of a row exactly (its mean is that logit), but what is reported is the refined logit,
which has looked at other rows. This file takes the mixer's input (features and raw logits of all rows), walks in a straight line
from a video whose every row is the mean row to the real one, and sums gradient x step on the way. The contributions add up to the
difference of the two logits, whatever the mixer is; what the walk missed is reported as `residual`.

Chosen over masking rows one by one, which costs a pass a row and, where rows back each other up, says that none matters.
After Sundararajan et al., Axiomatic Attribution for Deep Networks (2017).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from qle.cache.reader import Video
from qle.explain.explained import TemporalAttribution
from qle.heads.rows import RowHead, RowReading
from qle.segments.spans import rows_of
from qle.tasks.rows.scoring import RowScorer
from qle.types import Prediction

NUM_STEPS = 16
MAX_ROWS = 2048
"""Rows around the moment that are told apart; in longer videos the others stay as they are and count as background."""
CUT_ROWS = 8192
"""Rows around the moment that the mixer sees at all: each step costs a pass forward and back over them. Mixers with a reach
lose nothing; the logit that is explained is that of the cut, and is reported as such."""
PASS_ROWS = 16384
"""Rows of all steps that go through the mixer in one pass: short videos need one pass for all steps, long ones one a step."""
READ_ROWS = 1 << 18
"""Rows of all queries whose features are held at the same time."""


def attributions_of(
    scorer: RowScorer, video: Video, predictions: Sequence[Prediction]
) -> list[TemporalAttribution | None]:
    """For the best moment of each prediction (all of this video); None where there is none or none of its rows can be used.

    The video is read once for as many queries as READ_ROWS allows, not once for each.
    """
    with_moments = [
        number for number, prediction in enumerate(predictions) if prediction.moments and prediction.track is not None
    ]
    group = max(1, READ_ROWS // max(1, scorer.num_rows(video)))
    attributions: dict[int, TemporalAttribution | None] = {}
    for first in range(0, len(with_moments), group):
        numbers = with_moments[first : first + group]
        queries = tuple(dict.fromkeys(predictions[number].query for number in numbers))
        choice, reading, usable = scorer.read(video, queries)
        times_s = torch.from_numpy(np.array(choice.times_s)).to(scorer.device)
        for number in numbers:
            own_query = slice(queries.index(predictions[number].query), queries.index(predictions[number].query) + 1)
            own = RowReading(features=reading.features[own_query], raw_logit=reading.raw_logit[own_query])
            attributions[number] = _attribution_of(scorer.head, predictions[number], own, times_s, usable)
    return [attributions.get(number) for number in range(len(predictions))]


def _attribution_of(
    head: RowHead, prediction: Prediction, reading: RowReading, times_s: Tensor, usable: Tensor
) -> TemporalAttribution | None:
    """For the best moment, with the rows around it alone."""
    assert prediction.track is not None
    best = prediction.moments[0]
    target = rows_of(best.start_s, best.end_s, prediction.track.edges_s)
    if not bool(usable[target].any()):
        return None
    cut = _around(target, len(usable), max(CUT_ROWS, 2 * (target.stop - target.start)))
    inside = slice(target.start - cut.start, target.stop - cut.start)
    near = RowReading(features=reading.features[:, cut], raw_logit=reading.raw_logit[:, cut])
    attribution = attribute(head, near, times_s[cut], usable[cut], inside, span_s=(best.start_s, best.end_s))
    return replace(attribution, first_row=attribution.first_row + cut.start)


def attribute(
    head: RowHead,
    reading: RowReading,
    times_s: Tensor,
    usable: Tensor,
    target: slice,
    *,
    span_s: tuple[float, float],
    num_steps: int = NUM_STEPS,
) -> TemporalAttribution:
    """For one query (`reading` holds one); `target`: the rows of the moment, `span_s` its start and end for the reader."""
    if len(reading.raw_logit) != 1:
        raise ValueError(f"attribution explains one query at a time, got {len(reading.raw_logit)}")
    wanted = torch.zeros_like(usable)
    wanted[target] = usable[target]
    if not bool(wanted.any()):
        raise ValueError(f"none of the rows {target.start}..{target.stop - 1} has tokens: nothing can be attributed")
    near = _around(target, len(usable), MAX_ROWS)
    head.eval()  # with dropout every step would explain another mixer

    def logits_of(features: Tensor, raw_logit: Tensor) -> Tensor:
        """The mean logit of the moment in each reading; readings do not know of each other."""
        scores = head.refine(RowReading(features=features, raw_logit=raw_logit), times_s, usable)
        return scores.logit[:, wanted].mean(1)

    begin = _mean_rows(reading.features, usable, near), _mean_rows(reading.raw_logit, usable, near)
    steps = [end.detach() - start for start, end in zip(begin, (reading.features, reading.raw_logit), strict=True)]
    total = torch.zeros_like(reading.raw_logit[0])
    for shares, weights in _stations(num_steps, max(1, PASS_ROWS // len(usable)), total):
        stations = [
            (start + shares.view(-1, *(1,) * (start.ndim - 1)) * step).requires_grad_()
            for start, step in zip(begin, steps, strict=True)
        ]
        with torch.enable_grad():
            # A mixer may ignore one of the two.
            slopes = torch.autograd.grad(logits_of(*stations).sum(), stations, allow_unused=True)
        for slope, step in zip(slopes, steps, strict=True):
            if slope is not None:
                moved = slope * step
                total += weights @ (moved.sum(-1) if moved.ndim == 3 else moved)
    with torch.no_grad():
        ends = [torch.cat(pair) for pair in zip((reading.features, reading.raw_logit), begin, strict=True)]
        logit, baseline = logits_of(*ends).tolist()
    contribution: np.ndarray = total[near].float().cpu().numpy()
    return TemporalAttribution(
        first_row=near.start,
        contribution=contribution,
        target=span_s,
        logit=logit,
        baseline=baseline,
        residual=logit - baseline - float(contribution.sum()),
    )


def _stations(count: int, at_once: int, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Where on the way (0..1) slopes are taken, and their weights, in groups: Gauss-Legendre, dense at both ends, where mixers
    that normalise turn fastest."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    shares, halves = like.new_tensor((nodes + 1) / 2), like.new_tensor(weights / 2)
    return zip(shares.split(at_once), halves.split(at_once), strict=True)


def _around(target: slice, num_rows: int, most: int) -> slice:
    """All rows, or `most` of them with the middle of the target in their middle."""
    first = max(0, min((target.start + target.stop) // 2 - most // 2, num_rows - most))
    return slice(first, min(first + most, num_rows))


def _mean_rows(values: Tensor, usable: Tensor, near: slice) -> Tensor:
    """The same with the mean of all usable rows in the place of every row of `near` that has tokens."""
    mean = values[:, usable].mean(1, keepdim=True)
    replaced = torch.zeros_like(usable)
    replaced[near] = usable[near]
    shape = (1, -1) + (1,) * (values.ndim - 2)
    return torch.where(replaced.view(shape), mean, values).detach()
