"""A prediction together with what supports it: the frames that speak most, where in them, and which rows moved the score."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qle.explain.maps import WHOLE, Region
from qle.types import Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedFrame:
    """A picture and its relevance map as a page holds them, each a data URI."""

    picture: str
    colours: str
    """The map as colours that lie over the picture; empty where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedFrame:
    """One picture and its relevance map."""

    time_s: float
    """From the beginning of the video, as the times of moments."""
    relevance: np.ndarray | None
    """(rows, cols) float32, signed; its mean is the raw logit. None for heads without maps."""
    scale: float
    """|value| of the full colour: the same for all frames of a query."""
    source_frame: int | None = None
    """Number of the picture in its film; None where none is to be fetched."""
    frame: np.ndarray | None = None
    """(height, width, 3) uint8; None where it has not been fetched, or the film is gone: then the map is shown alone."""
    encoded: EncodedFrame | None = None
    """Stands in the place of `frame` once the picture has been made for the page."""
    probability: float | None = None
    """Calibrated score of the row."""
    region: Region = WHOLE
    """Which part of the picture the map covers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalAttribution:
    """How much each row contributed to the refined logit of one moment (attribution.py)."""

    first_row: int
    """The row of the video with which `contribution` begins."""
    contribution: np.ndarray
    """(rows,) float32 logits; their sum is `logit - baseline`."""
    target: tuple[float, float]
    """Start and end in seconds of the moment whose mean logit is explained."""
    logit: float
    """Mean refined logit of the moment's rows."""
    baseline: float
    """The same for a video whose every row is the mean row: no row stands out."""
    residual: float
    """logit - baseline - sum: what the numerical integration missed; small, or the strip is not to be trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownFilm:
    """The film of a video, which a page may play where it lies beside it."""

    path: Path
    begin_s: float = 0.0
    """Where in the film the video begins: above 0 for a clip that a manifest listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedPrediction:
    """What a report shows about one query."""

    prediction: Prediction
    frames: tuple[ExplainedFrame, ...] = ()
    """In order of time."""
    scale: float = 1.0
    """The scale of the maps of all frames."""
    attribution: TemporalAttribution | None = None
    film: ShownFilm | None = None
    """None where it is gone, or not the one that was extracted."""
    note: str = ""
    """Why something is missing (the source video is gone ...), for the reader."""
