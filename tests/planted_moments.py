"""Features in which events can be read off, and a head that reads them off: what is found is then known beforehand.

    (start, stop, channel) in clips -> feature files -> cache, as users import them

While something happens its channel is high; `PlantedHead` answers "event 3" with the runs of channel 3 in its window.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from qle.cache.reader import open_cache
from qle.cache.tools.interchange import ImportOptions, import_features
from qle.data.streams.features import StreamSet
from qle.data.streams.recipe import StreamChoice
from qle.heads.base import Losses, TokenShapes
from qle.heads.moments import MomentBatch, MomentHead, MomentOutput
from qle.tasks.moments.batches.config import MomentDataConfig

DIM, CLIP_S = 8, 2.0
Events = Iterable[tuple[int, int, int]]


def planted_features(num_clips: int, events: Events, seed: int = 0) -> np.ndarray:
    """(clips, DIM): the last channel is always there."""
    features = np.random.default_rng(seed).normal(0, 0.02, (num_clips, DIM)).astype(np.float32)
    features[:, -1] += 1.0
    for start, stop, channel in events:
        features[start:stop, channel] += 10.0
    return features


def planted_cache(root: Path, videos: Mapping[str, np.ndarray], name: str = "planted") -> Path:
    """A cache with the features of each video, imported from files."""
    (root / name).mkdir(parents=True)
    for video, features in videos.items():
        np.savez(root / name / f"{video}.npz", features=features)
    import_features([root / name], root / "cache", ImportOptions(name=name, clip_length_s=CLIP_S))
    return root / "cache"


def planted_streams(cache: Path, *names: str, **settings: object) -> StreamSet:
    """Of the spaces that are named ("planted+tef"), else of the only one."""
    choices = [StreamChoice.parse(name) for name in names or ("planted+tef",)]
    return StreamSet.open(open_cache(cache), choices, MomentDataConfig(**settings))  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class PlantedConfig:
    """How many answers it gives."""

    num_queries: int = 4


class PlantedHead(MomentHead):
    """Sure of what it sees, and honest about the rest: further answers are short and improbable. Runs that a border of the window
    cuts end there, as they do for real heads."""

    name: ClassVar[str] = "planted"
    Config: ClassVar[type] = PlantedConfig

    def __init__(self, config: PlantedConfig = PlantedConfig(), shapes: TokenShapes | None = None) -> None:
        super().__init__()
        self.config = config
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, batch: MomentBatch) -> MomentOutput:
        items, num_queries = batch.num_items, self.config.num_queries
        spans = torch.full((1, items, num_queries, 2), 0.01)
        spans[..., 0] = torch.linspace(0.3, 0.7, num_queries)
        logits = torch.tensor([-4.0, 4.0]).repeat(1, items, num_queries, 1)
        saliency = torch.zeros(items, batch.clips.shape[1])
        for place in range(items):
            channel = int(batch.queries[int(batch.query_index[place])].split()[-1])
            last = int(batch.clip_mask[place].nonzero()[-1])
            count = round((last + 1) / float(batch.clips[place, last, -1]))  # the endpoints tell where the window ends
            level = batch.clips[place, :count, channel]
            saliency[place, :count] = 8 * level - 4
            change = np.diff((level > 0.5).numpy().astype(np.int8), prepend=0, append=0)
            runs = np.flatnonzero(change).reshape(-1, 2)
            runs = runs[np.argsort(runs[:, 0] - runs[:, 1], kind="stable")][:num_queries]
            for number, (start, stop) in enumerate(runs.tolist()):
                spans[0, place, number] = torch.tensor([(start + stop) / 2 / count, (stop - start) / count])
                logits[0, place, number] = torch.tensor([4.0 - number / 8, 0.0])
        return MomentOutput(logits=logits, spans=spans, saliency=saliency)

    def loss(self, output: MomentOutput, batch: MomentBatch) -> Losses:
        raise NotImplementedError("it knows everything already")
