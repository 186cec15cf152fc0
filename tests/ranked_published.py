"""Post-processing as the published programs of the Moment-DETR family do it, number by number, for parity alone.

    raw logits, (centre, width), saliency of one video -> rows (start, end, score) as their submission files hold them

Nothing in qle ranks with this: `ranked.py` knows the length of the video, keeps full precision and gives no span without
length. What is kept here because published numbers hang on it:

parity: results are clipped at 150 s whatever the length of the video is, and rounded to multiples of 2 s, halves to the
even multiple; a span may lose its length. Scores have four decimals. Saliency goes through half precision, so that clips tie.
The optional suppression takes the hull of two spans for their union, and looks at the first rows only.
"""

from dataclasses import dataclass

import numpy as np

LAST_S, CLIP_S, DECIMALS = 150.0, 2.0, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedResult:
    """One query in one video."""

    ranked: np.ndarray
    """(queries, 3) float64: start, end, score, before they are clipped and rounded; best first, unless left unsorted."""
    rows: np.ndarray
    """The same after it."""
    saliency: np.ndarray
    """(clips,) float16"""


def published_post_processing(
    logits: np.ndarray, spans: np.ndarray, saliency: np.ndarray, duration_s: float, *, last_s: float = LAST_S,
    clip_s: float = CLIP_S, is_sorted: bool = True,
) -> PublishedResult:  # fmt: skip
    """`logits` (queries, 2), foreground first; `spans` (queries, 2) centre and width in parts of the video; all float32. Not
    `is_sorted`: rows stay in the order of the queries of the head (--no_sort_results)."""
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    score = (exps / exps.sum(axis=1, keepdims=True))[:, 0]
    half = spans[:, 1] * np.float32(0.5)
    edges = np.stack([spans[:, 0] - half, spans[:, 0] + half], axis=1) * np.float32(duration_s)
    table = np.concatenate([edges, score[:, None]], axis=1)
    order = np.argsort(-table[:, 2], kind="stable") if is_sorted else slice(None)
    ranked = _decimals(table[order])
    clipped = np.clip(ranked[:, :2].astype(np.float32), 0, np.float32(last_s))
    rounded = np.rint(clipped / np.float32(clip_s)) * np.float32(clip_s)
    rows = np.concatenate([rounded.astype(np.float64), _decimals(ranked[:, 2:].astype(np.float32))], axis=1)
    return PublishedResult(ranked=ranked, rows=rows, saliency=saliency.astype(np.float16))


def published_suppression(rows: np.ndarray, threshold: float, *, most_before: int, most_after: int) -> np.ndarray:
    """The rows (start, end, score) that stay, best first: of the first `most_before` in the order that they have."""
    if len(rows) <= 1:
        return rows
    left = rows[:most_before]
    left = left[np.argsort(-left[:, 2], kind="stable")]
    kept: list[np.ndarray] = []
    while len(left) and len(kept) < most_after:
        first, left = left[0], left[1:]
        kept.append(first)
        left = left[_hull_overlap(first, left) <= threshold]
    return np.array(kept)


def _hull_overlap(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    both = np.maximum(np.minimum(one[1], others[:, 1]) - np.maximum(one[0], others[:, 0]), 0)
    hull = np.maximum(one[1], others[:, 1]) - np.minimum(one[0], others[:, 0])
    return np.where(hull > 0, both / np.where(hull > 0, hull, 1), 0.0)


def _decimals(values: np.ndarray) -> np.ndarray:
    """As text of four decimals is read back."""
    flat = [float(f"{value:.{DECIMALS}f}") for value in values.ravel().tolist()]
    return np.array(flat, np.float64).reshape(values.shape)
