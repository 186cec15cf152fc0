"""Small caches in which events can be seen: while something happens, one channel of the patch map is high in one column.

    planted_cache -> cache with the real writer, train.jsonl and val.jsonl

Three queries; each video shows one or two of them for a few rows. A head that reads the tokens at all learns it in a minute
of steps, one that does not stays at chance.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qle.cache.records import SourceFacts
from qle.cache.spaces import create_space
from qle.cache.writer import VideoWriter
from qle.config import override
from qle.data.annotations import Annotation, write_annotations
from qle.types import RowPlan, SourceFingerprint, SpaceSpec, Stream

if TYPE_CHECKING:
    from qle.train.request import TrainRequest

QUERIES = ("a polyp appears", "the grasper opens", "smoke fills the view")
DIM, GRID, ROWS = 8, 2, 24

TINY_HEAD = ("head.dim=16", "head.num_layers=1", "head.num_heads=2", "head.temporal_layers=1", "head.temporal_heads=2")


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Where things are."""

    cache: Path
    train: Path
    val: Path

    def arguments(self, out: Path, *settings: str) -> list[str]:
        """Of `qle train-heads`, with the smallest head."""
        line = ["--cache", self.cache, "--annotations", self.train, "--val", self.val, "--out", out, "--device", "cpu"]
        assignments = [part for setting in (*TINY_HEAD, "text.dim=16", *settings) for part in ("--set", setting)]
        return [str(part) for part in line] + assignments

    def request(self, out: Path, *settings: str) -> "TrainRequest":
        """The same as `arguments`."""
        from qle.train.request import TrainRequest

        return TrainRequest(
            cache=self.cache, annotations=self.train, val=self.val, out=out, device="cpu", track="none",
            settings=override({}, [*TINY_HEAD, "text.dim=16", *settings]),
        )  # fmt: skip


def planted_spec(name: str = "planted", streams: tuple[str, ...] = ("patch", "frame")) -> SpaceSpec:
    shapes = {"patch": ((GRID, GRID, DIM), ("rows", "cols", "dim")), "frame": ((DIM,), ("dim",))}
    return SpaceSpec(
        name=name,
        hashed={"backbone": {"id": name, "layer": 12}, "sampling": {"fps": 1.0}, "streams": list(streams)},
        streams=tuple(
            Stream(name=stream, row_shape=shapes[stream][0], axes=shapes[stream][1], dtype="float16")
            for stream in streams
        ),
        recorded={"device": "cpu"},
    )


def planted_cache(
    root: Path, *, num_train: int = 6, num_val: int = 3, streams: tuple[str, ...] = ("patch", "frame")
) -> Planted:
    """A cache below root, and annotations of every query in every video: absent ones have no window."""
    space = create_space(root / "cache", planted_spec(streams=streams))
    annotations: dict[str, list[Annotation]] = {"train": [], "val": []}
    for number in range(num_train + num_val):
        split = "train" if number < num_train else "val"
        rng = np.random.default_rng([7, number])
        key = f"{split}{number}.mp4"
        num_rows = ROWS + number % 3
        patch = rng.normal(0, 0.3, (num_rows, GRID, GRID, DIM)).astype(np.float32)
        for place, query in enumerate(QUERIES):
            windows: tuple[tuple[float, float], ...] = ()
            if (number + place) % 3 != 2:  # one of the three is absent
                start = int(rng.integers(0, num_rows - 8))
                stop = start + int(rng.integers(4, 9))
                patch[start:stop, :, place % GRID, place] += 4.0
                windows = ((float(start), float(stop)),)
            annotations[split].append(
                Annotation(qid=f"{key}-{place}", video=key, query=query, windows=windows, duration_s=float(num_rows))
            )
        _write(space, key, number, {"patch": patch, "frame": patch.mean((1, 2))}, streams)
    paths = {split: root / f"{split}.jsonl" for split in annotations}
    for split, path in paths.items():
        write_annotations(path, annotations[split])
    return Planted(cache=root / "cache", train=paths["train"], val=paths["val"])


def _write(space: object, key: str, seed: int, values: dict[str, np.ndarray], streams: tuple[str, ...]) -> None:
    num_rows = len(values["patch"])
    rows = np.arange(num_rows)
    plan = RowPlan(frame_index=rows, pts_s=rows.astype(np.float64), is_valid=np.ones(num_rows, dtype=bool))
    source = SourceFacts(
        path=f"/films/{key}",
        fingerprint=SourceFingerprint(size=1000 + seed, mtime_ns=seed, edge_hash=f"{seed:032x}"),
        codec="h264",
        fps=1.0,
        duration_s=float(num_rows),
        num_frames=num_rows,
    )
    with VideoWriter.open(space, key, plan, source, store="zarr", durability="none") as writer:  # type: ignore[arg-type]
        for stream in streams:
            writer.write(stream, rows, values[stream])
        writer.commit()
