"""Queries and cached videos -> how well they fit, by a trained head that ranks videos.

    queries -> sentences    keys -> FrameSource -> frames of a few hundred videos at a time    -> head.similarity -> numpy

A score depends on its query and its video alone, so callers may cut both as they like.
"""

from collections.abc import Sequence

import numpy as np
import torch

from qle.errors import CheckpointError, ConfigError
from qle.heads.retrieval import RetrievalHead
from qle.heads.tmass.head import TmassHead
from qle.tasks.retrieval.batches.frames import FrameSource
from qle.tasks.retrieval.batches.sentences import sentences_of
from qle.tasks.scoring import scoring
from qle.text.bank import QueryBank
from qle.types import OnProgress

VIDEOS_PER_READ = 512
"""Whose frames are in memory at a time."""


class VideoRanker:
    """Scores videos of a space with a trained head, which is left in the mode that it was in."""

    def __init__(self, head: RetrievalHead, text: QueryBank, frames: FrameSource, *, device: torch.device) -> None:
        if frames.num_frames != head.num_frames:
            raise ValueError(f"head {head.name} reads {head.num_frames} frames of a video, not {frames.num_frames}")
        self.head, self.text, self.frames, self.device = head.to(device), text, frames, device

    def similarity(
        self, queries: Sequence[str], keys: Sequence[str], on_progress: OnProgress | None = None
    ) -> np.ndarray:
        """(queries, videos) float32; a query that is asked twice is scored once. Progress in videos."""
        if not queries or not keys:
            return np.empty((len(queries), len(keys)), np.float32)
        number = {query: position for position, query in enumerate(dict.fromkeys(queries))}
        similarity = np.empty((len(number), len(keys)), np.float32)
        with scoring((self.head, self.text.encoder), self.device, "float32"):
            words = sentences_of(self.text, tuple(number), self.device)
            for first in range(0, len(keys), VIDEOS_PER_READ):
                part = keys[first : first + VIDEOS_PER_READ]
                frames = torch.from_numpy(self.frames.frames(part)).to(self.device)
                similarity[:, first : first + len(part)] = self.head.similarity(words, frames).float().cpu().numpy()
                if on_progress is not None:
                    on_progress(first + len(part), len(keys), part[-1])
        if not np.isfinite(similarity).all():
            raise CheckpointError(
                f"head {self.head.name} gives scores that are not finite on finite frames\n"
                "its weights are damaged or its training diverged: use another checkpoint"
            )
        return similarity if len(number) == len(queries) else similarity[[number[query] for query in queries]]

    def published_leaking_similarity(
        self, queries: Sequence[str], video_of_query: np.ndarray, keys: Sequence[str]
    ) -> np.ndarray:
        """parity: (queries, videos) as T-MASS was evaluated when it was published: each candidate is pooled with its own
        caption, which tells who is right. NaN where a candidate has no such caption. video_of_query: numbers among `keys`."""
        if not isinstance(self.head, TmassHead):
            raise ConfigError(f"the published leaking score is that of head tmass, this run has head {self.head.name}")
        with scoring((self.head, self.text.encoder), self.device, "float32"):
            words = sentences_of(self.text, queries, self.device)
            frames = torch.from_numpy(self.frames.frames(keys)).to(self.device)
            numbers = torch.from_numpy(video_of_query).to(self.device)
            similarity: np.ndarray = self.head.leaking_similarity(words, frames, numbers).cpu().numpy()
        return similarity
