"""What the evaluation of moment heads begins with: candidates beside the annotation that they answer.

list[RankedQuery] + Ranking (from the run) -> ranked.rank -> Moment, Moment, ... -> metrics
"""

from dataclasses import dataclass

from qle.data.annotations import Annotation
from qle.segments.ranked import Candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedQuery:
    """One query, one video, what is true and what the head says."""

    annotation: Annotation
    video: str
    """Key in the cache."""
    candidates: Candidates
