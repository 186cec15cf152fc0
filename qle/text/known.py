"""How near are the words of a query to those that a run was trained with?

    sentence vectors of the training texts, kept in the run + sentence vectors of queries -> Familiarity of each

A head answers every query, and of words that mean nothing to it the answer is an accident. What it can know is what the
sentence space of its text encoder puts near to a text that it was trained with: a paraphrase, another word in the same
place. The distance at which that ends is fitted in training (tasks/known.py) and stored in the run.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from qle.types import Familiarity

SENTENCES = "sentences"
"""Name of the one tensor in the file of a run."""
QUERIES_PER_PASS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTexts:
    """The training texts of a run, and how far from them its knowledge reaches."""

    sentences: Float[Tensor, "texts sentence_dim"]
    """The vectors of the distinct training texts, each of length 1."""
    limit: float
    """Distance at which it is as likely as not that the words are understood."""
    slope: float
    """How fast that probability falls there, in log-odds for a distance of 1."""

    @torch.no_grad()
    def familiarity(self, sentences: Float[Tensor, "queries sentence_dim"]) -> list[Familiarity]:
        """How familiar encoded queries are, in their order."""
        distance = torch.cat([self.distance(part) for part in sentences.split(QUERIES_PER_PASS)]).double()
        probability = torch.sigmoid(self.slope * (self.limit - distance))
        return [
            Familiarity(distance=far, probability=sure)
            for far, sure in zip(distance.tolist(), probability.tolist(), strict=True)
        ]

    def distance(self, sentences: Float[Tensor, "queries sentence_dim"]) -> Float[Tensor, " queries"]:
        """Cosine distance from the nearest training text, in [0, 2]."""
        known = self.sentences.to(sentences.device)
        return (1 - (F.normalize(sentences.float(), dim=-1) @ known.T).amax(-1)).clamp(min=0)
