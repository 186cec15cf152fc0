"""How long it takes to know what a cache of 100,000 videos holds: the index, `qle cache inspect`, the plan of a resume.

    python benchmarks/index_scale.py [--videos 100000] [--folder FOLDER]

Videos are real: a group each, with its own folders and its own commit record. Only their data files are hard links to those
of a few videos that were written in full, so that 1.2 million files take two minutes and little disk. Everything is warm in
the page cache. Limit to compare with: one stat call for each file and each source, which no plan can do without.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from qle.cache.index import INDEX_FILE, load_index
from qle.cache.layout import COMMIT_FILE, video_folder
from qle.cache.records import SourceFacts
from qle.cache.sources import fingerprint
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.states import count_states, states
from qle.cache.writer import VideoWriter
from qle.types import RowPlan, SpaceSpec, Stream, VideoSource

LINKS_PER_FILE = 30_000
"""ext4 allows 65,000."""


def build(root: Path, num_videos: int) -> tuple[SpaceFolder, list[VideoSource]]:
    """A cache of that many videos beside a folder with their sources."""
    streams = (
        Stream(name="patch", row_shape=(2, 2, 8), axes=("rows", "cols", "dim"), dtype="float16"),
        Stream(name="frame", row_shape=(8,), axes=("dim",), dtype="float16"),
    )
    space = create_space(root / "cache", SpaceSpec(name="scale", hashed={"made": "up"}, streams=streams, recorded={}))
    sources = [
        VideoSource(key=f"ward {n % 50}/{n:06d}.mp4", path=root / "films" / f"{n:06d}.mp4") for n in range(num_videos)
    ]
    (root / "films").mkdir(exist_ok=True)
    for start in range(0, num_videos, LINKS_PER_FILE):
        first, *others = sources[start : start + LINKS_PER_FILE]
        first.path.write_bytes(b"film")
        folder = _write(space, first)
        record = (folder / COMMIT_FILE).read_text()
        tree = [(where[len(str(folder)) :], names) for where, _, names in os.walk(folder)]
        for source in others:
            os.link(first.path, source.path)
            _clone(str(folder), tree, str(video_folder(space.path, source.key, "zarr")))
            text = record.replace(first.key, source.key).replace(str(first.path), str(source.path))
            (video_folder(space.path, source.key, "zarr") / COMMIT_FILE).write_text(text)
    return space, sources


def _write(space: SpaceFolder, source: VideoSource) -> Path:
    """A video of eight rows, in full."""
    rows = RowPlan(frame_index=np.arange(8), pts_s=np.arange(8.0), is_valid=np.ones(8, dtype=bool))
    facts = SourceFacts(path=str(source.path), fingerprint=fingerprint(source.path))
    with VideoWriter.open(space, source.key, rows, facts, durability="none") as writer:
        writer.write("patch", np.arange(8), np.zeros((8, 2, 2, 8), np.float16))
        writer.write("frame", np.arange(8), np.zeros((8, 8), np.float16))
        writer.commit()
    return video_folder(space.path, source.key, "zarr")


def _clone(folder: str, tree: list[tuple[str, list[str]]], target: str) -> None:
    for where, names in tree:
        os.makedirs(target + where)
        for name in names:
            if name != COMMIT_FILE:
                os.link(f"{folder}{where}/{name}", f"{target}{where}/{name}")


def stat_all(space: SpaceFolder, sources: list[VideoSource]) -> None:
    """The limit: the paths are known, and nothing is done with the answers."""
    table = load_index(space).table
    for shelf, name, paths in zip(*(table[c].to_pylist() for c in ("shelf", "name", "file_paths")), strict=True):
        for path in paths:
            os.stat(f"{space.path}/videos/{shelf:02x}/{name}/{path}")
    for source in sources:
        os.stat(source.path)


def timed(what: str, call: Callable[[], object], results: dict[str, float], repeats: int = 1) -> None:
    """The best of several, since a busy machine only adds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    results[what] = round(min(seconds), 3)
    print(f"{what:<44} {results[what]:8.3f} s", flush=True)


def measure(root: Path, num_videos: int) -> dict[str, float]:
    results: dict[str, float] = {}
    built = []
    timed(f"build {num_videos:,} videos", lambda: built.append(build(root, num_videos)), results)
    space, sources = built[0]
    (space.path / INDEX_FILE).unlink(missing_ok=True)
    timed("index from the records", lambda: load_index(space), results)
    time.sleep(2.5)  # folders that changed within two seconds of being listed are not believed
    timed("index once more, folders too young to trust", lambda: load_index(space), results)
    timed("index, nothing changed", lambda: load_index(space), results, repeats=3)
    inspect = [sys.executable, "-m", "qle", "cache", "inspect", str(root / "cache"), "--json"]
    timed(
        "qle cache inspect, the whole command",
        lambda: subprocess.run(inspect, check=True, capture_output=True),
        results,
    )
    timed("stat every file and source (the limit)", lambda: stat_all(space, sources), results, repeats=2)
    timed("plan of a resume, all done", lambda: states(space, sources), results, repeats=2)
    results["ratio of plan to limit"] = (
        results["stat every file and source (the limit)"] / results["plan of a resume, all done"]
    )
    found = states(space, sources)
    assert count_states(found)["done"] == num_videos, count_states(found)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where to build; a temp folder that is removed if not given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print(json.dumps(measure(Path(folder), arguments.videos), indent=2))


if __name__ == "__main__":
    main()
