"""A script as annotations: queries in words, windows, boxes and masks.

    Script, SyntheticConfig -> Labels(annotations, paraphrases, tracks)

Nothing is drawn for that but the things themselves, at MASKS_PER_S times a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from qle.data.annotations import Annotation, FrameBox
from qle.data.masks import MaskTrack
from qle.synthetic.film import Film
from qle.synthetic.queries import ScriptQuery, queries_of
from qle.synthetic.script import Script, SyntheticConfig

MASKS_PER_S = 4.0
BOXES_PER_S = 2.0
MASK_SIDE = 56
PARAPHRASE = "paraphrase"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Everything that is known about one video."""

    annotations: tuple[Annotation, ...]
    paraphrases: tuple[Annotation, ...]
    """The same questions in wordings that training does not use; of test videos only."""
    tracks: dict[str, MaskTrack]
    """By the name in the references."""


def label(script: Script, config: SyntheticConfig) -> Labels:
    """Equal arguments give equal labels, in whatever process."""
    film = Film(script, config)
    queries = queries_of(script)
    located = [_locate(film, query, config) for query in queries]
    tracks = {query.concept.slug: track for query, (track, _) in zip(queries, located, strict=True) if query.windows}
    boxes = [boxes for _, boxes in located]
    return Labels(
        annotations=_annotations(script, queries, boxes, split=script.split),
        paraphrases=_annotations(script, queries, boxes, split=PARAPHRASE) if script.split == "test" else (),
        tracks=tracks,
    )


def _annotations(
    script: Script, queries: Sequence[ScriptQuery], boxes: Sequence[tuple[FrameBox, ...]], *, split: str
) -> tuple[Annotation, ...]:
    is_unseen = split == PARAPHRASE
    rng = np.random.default_rng([script.seed, 6 if is_unseen else 5])
    made = []
    for number, (query, query_boxes) in enumerate(zip(queries, boxes, strict=True)):
        wordings = query.concept.wordings(is_unseen=is_unseen)
        stem = script.key.removesuffix(".mp4")
        made.append(
            Annotation(
                qid=f"{split}/{script.number:03d}-{number:02d}",
                video=script.key,
                query=wordings[int(rng.integers(len(wordings)))],
                windows=query.windows,
                duration_s=script.seconds,
                boxes=query_boxes,
                masks=f"masks/{stem}.npz:{query.concept.slug}" if query.windows else "",
                split=split,
                concept=query.concept.key,
            )
        )
    return tuple(made)


def _locate(film: Film, query: ScriptQuery, config: SyntheticConfig) -> tuple[MaskTrack, tuple[FrameBox, ...]]:
    """The thing in the frames that are next to every quarter of a second, where it can be seen well."""
    times_s, masks, boxes = [], [], []
    stride = max(1, round(config.fps / MASKS_PER_S))
    boxes_every = max(1, round(MASKS_PER_S / BOXES_PER_S))
    for count, number in enumerate(range(0, film.num_frames, stride)):
        time_s = number / config.fps
        events = [event for event in query.events if event.start_s < time_s < event.end_s]
        if not events:
            continue
        mask = np.logical_or.reduce([film.seen(event, time_s) for event in events])
        small = shrink_mask(mask, min(MASK_SIDE, config.size))
        if not small.any():
            continue
        times_s.append(time_s)
        masks.append(small)
        if count % boxes_every == 0:
            boxes.append(_box(mask, time_s))
    side = min(MASK_SIDE, config.size)
    stack = np.stack(masks) if masks else np.zeros((0, side, side), bool)
    return MaskTrack(times_s=np.array(times_s, np.float64), masks=stack), tuple(boxes)


def shrink_mask(mask: np.ndarray, side: int) -> np.ndarray:
    """Cells of which half or more is covered."""
    covered = Image.fromarray(mask.astype(np.uint8) * 255).resize((side, side), Image.Resampling.BOX)
    return np.asarray(covered) >= 128


def _box(mask: np.ndarray, time_s: float) -> FrameBox:
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    return FrameBox(
        time_s=time_s,
        left=round(float(cols[0]) / width, 4),
        top=round(float(rows[0]) / height, 4),
        right=round(float(cols[-1] + 1) / width, 4),
        bottom=round(float(rows[-1] + 1) / height, 4),
    )
