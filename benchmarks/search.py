"""How long a query over 100,000 videos takes on two cores: `qle search`, stage by stage, and the whole command.

    python benchmarks/search.py [--videos 100000] [--shortlist 1000] [--folder FOLDER] [--limit 2.0] [--json]

The pooled index is the real one, written by its real writer: 12 frames of 512 float16 of each video (1.2 GB), means, keys,
digests. The 100,000 videos behind it are not there: what a search reads of them after the first time is the index alone. Twenty
small videos are, and stage 2 is measured on them. Weights of both runs are random, which costs the same as trained ones.

warm: the files are in the page cache; CPU seconds of one core, since machines are shared, with the clock beside them. cold: they
are dropped from the cache before (posix_fadvise), and everything is opened anew; by the clock. One thread. Limits, measured in
the same run: the coarse vectors once at the speed at which float16 numbers become float32 and are summed; of the shortlist the
frames once at that speed, and the products of its scores at the speed of a large matrix product.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from qle.cache.index import commit_folders, settled
from qle.cache.reader import Cache, Space, open_cache
from qle.cache.records import SourceFacts
from qle.cache.spaces import create_space
from qle.cache.writer import VideoWriter
from qle.data.streams.features import StreamSet
from qle.data.streams.recipe import FeatureRecipe, StreamChoice
from qle.heads import build_head, head_class
from qle.heads.base import TokenShapes
from qle.runs.record import RunRecord, SpaceUse, save_run
from qle.search.moments import MomentSearch
from qle.search.pooled import folder_of, to_float16
from qle.search.pooled_update import IndexWriter
from qle.search.videos import VideoSearch, open_search
from qle.segments.ranked import Ranking
from qle.tasks.moments.batches.config import MomentDataConfig
from qle.tasks.retrieval.batches.frames import FrameSource
from qle.text import TextRequest, build_text_encoder
from qle.types import RowPlan, SourceFingerprint, SpaceSpec, Stream

NUM_FRAMES, DIM, NUM_CLIPS, NUM_REAL = 12, 512, 75, 20
CPU = torch.device("cpu")
QUERIES = ("a clipper is present", "somebody opens the door", "the green polyp is removed", "a dog runs after a ball")


def make_space(folder: Path) -> Cache:
    """A few real videos."""
    rng = np.random.default_rng(0)
    stream = Stream(name="frame", row_shape=(DIM,), axes=("dim",), dtype="float16")
    sampling = {"rule": "(row + 0.5) * clip_length_s", "clip_length_s": 2.0}
    space = create_space(folder, SpaceSpec(name="clip", hashed={"sampling": sampling}, streams=(stream,), recorded={}))
    facts = SourceFacts(
        path="none", fingerprint=SourceFingerprint(size=0, mtime_ns=0, edge_hash=""), start_s=0.0, end_s=NUM_CLIPS * 2.0
    )
    rows = np.arange(NUM_CLIPS)
    plan = RowPlan(frame_index=rows, pts_s=(rows + 0.5) * 2.0, is_valid=np.ones(NUM_CLIPS, dtype=bool))
    for number in range(NUM_REAL):
        with VideoWriter.open(space, f"real/{number}.mp4", plan, facts, store="zarr", durability="none") as writer:
            writer.write("frame", rows, rng.standard_normal((NUM_CLIPS, DIM)).astype(np.float16))
            writer.commit()
    return open_cache(folder)


def make_index(frames: FrameSource, num_videos: int) -> float:
    """Seconds of the writer."""
    rng = np.random.default_rng(1)
    folder, path = folder_of(frames), frames.space.path
    folder.mkdir()
    time.sleep(2.5)  # folders that changed a moment ago are not believed
    writer = IndexWriter(folder, frames, None)
    noise = rng.standard_normal((4096, NUM_FRAMES, DIM), dtype=np.float32)
    keys = [f"ward {number % 50}/{number:06d}.mp4" for number in range(num_videos)]
    start = time.perf_counter()
    for first in range(0, num_videos, 1024):
        part = keys[first : first + 1024]
        vectors = np.roll(noise[: len(part)], first // 1024 + 1, axis=2) + noise[first // 1024, 0]
        writer.append(part, to_float16(vectors), dict.fromkeys(part, 0))
    writer.commit(settled(path, commit_folders(path)))
    return time.perf_counter() - start


def make_run(folder: Path, head: str, recipe: FeatureRecipe, space: Space, settings: dict) -> Path:
    """As training would leave it, with weights that nobody trained."""
    torch.manual_seed(0)
    text = build_text_encoder(TextRequest(name="tiny", dim=DIM), "cpu")
    shapes = TokenShapes(
        streams=dict.fromkeys(head_class(head).streams, (recipe.dim,)),
        text_dim=text.dim,
        sentence_dim=text.sentence_dim,
    )
    use = SpaceUse(
        name=space.record.name, hash=space.record.hash, hashed=space.record.hashed, rate_fps=None,
        streams={stream.name: stream.row_shape for stream in space.record.streams},
    )  # fmt: skip
    record = RunRecord(
        head=head, head_config=settings, text=text.spec(), text_dim=text.dim, sentence_dim=text.sentence_dim, space=use,
        recipe=recipe, ranking=Ranking(), priors=None, settings={}, selection={}, versions={}, created=datetime.now(UTC),
    )  # fmt: skip
    save_run(folder, record, build_head(head, settings, shapes), text.train_state(), {})
    return folder


def timed(call: Callable[[], object], repeats: int = 5, clock: Callable[[], float] = time.process_time) -> float:
    """The median: a query is not always the first, nor the luckiest."""
    seconds = []
    for _ in range(repeats):
        start = clock()
        call()
        seconds.append(clock() - start)
    return sorted(seconds)[len(seconds) // 2]


def drop(folder: Path) -> None:
    """Out of the page cache."""
    os.sync()
    for path in folder.iterdir():
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def limits(search: VideoSearch, shortlist: int) -> dict[str, float]:
    """Seconds that no query can do without."""
    rows = search.index.num_rows
    block = torch.randn(8192, DIM).half()
    per_block = timed(lambda: block.float().sum())
    coarse_s = per_block * rows / 8192
    side = torch.randn(1024, 1024)
    per_product = timed(lambda: side @ side) / 1024**3
    # Value, output and linear layers of the pooling, what is done to each frame, radius and trials; norms as if they were free.
    pair = DIM * DIM * 3 + NUM_FRAMES * DIM * 4 + 20 * DIM * 3
    frames_s = per_block * shortlist * NUM_FRAMES / 8192
    return {"coarse limit s": coarse_s, "exact limit s": frames_s + per_product * pair * shortlist}


def in_new_process(line: Sequence[str]) -> tuple[float, str]:
    """Seconds of the whole command, and what it says on stdout."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "qle", *line], check=False, capture_output=True, text=True)
    if done.returncode not in (0, 4):  # 4: the localizer has none of the videos that are not there
        raise SystemExit(done.stderr)
    return time.perf_counter() - start, done.stdout


def measure(root: Path, num_videos: int, shortlist: int) -> dict[str, float]:
    torch.set_num_threads(1)
    cache = make_space(root / "cache")
    space = cache.space()
    frames = FrameSource(space, "frame", NUM_FRAMES, keep_bytes=0)
    results = {"write the index s": make_index(frames, num_videos)}
    streams = StreamSet.open(cache, [StreamChoice.parse("clip+tef")], MomentDataConfig())
    retriever = make_run(root / "retriever", "tmass", frames.recipe, space, {"num_frames": NUM_FRAMES, "dim": DIM})
    localizer = make_run(root / "localizer", "qd_detr", streams.recipe, space, {})
    pooled = folder_of(frames)

    def opened() -> VideoSearch:
        return open_search(retriever, cache.path, device=CPU)

    start = time.perf_counter()
    opened()
    results["first search of a retriever: coarse vectors s"] = time.perf_counter() - start
    drop(pooled)
    start = time.perf_counter()
    search = opened()
    results["open, cold s"] = time.perf_counter() - start
    start = time.perf_counter()
    search.rank([QUERIES[0]], shortlist)
    results["stage 1, cold s"] = time.perf_counter() - start
    results["open, warm s"] = timed(opened, 3)
    asked = iter(QUERIES * 10)
    results["stage 1, warm s"] = timed(lambda: search.rank([next(asked)], shortlist))
    every = np.arange(len(search.index))
    results["the same by the clock s"] = timed(lambda: search.rank([next(asked)], shortlist), clock=time.perf_counter)
    results["of it coarse s"] = timed(lambda: search.rough([next(asked)], every))
    results |= limits(search, shortlist)
    limit_s = results["coarse limit s"] + results["exact limit s"]
    results["ratio to the limits"] = results["stage 1, warm s"] / limit_s
    moments = MomentSearch(localizer, cache.path, device=CPU)
    videos = [f"real/{number}.mp4" for number in range(NUM_REAL)]
    results["stage 2, 20 videos of 75 clips s"] = timed(lambda: moments.locate({key: [QUERIES[0]] for key in videos}))
    line = ["search", "--cache", str(cache.path), "--retriever", str(retriever), "--query", QUERIES[0], "-q"]
    results["whole command, videos only s"] = min(in_new_process(line)[0] for _ in range(2))
    results["memory of this process GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {name: round(value, 4) for name, value in results.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--shortlist", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="where to build 1.4 GB; a temp folder that is removed if not given")
    parser.add_argument("--limit", type=float, help="fail where a warm query of both stages takes longer, in seconds")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=arguments.folder, prefix="qle-search-"))
    try:
        results = measure(folder, arguments.videos, arguments.shortlist)
    finally:
        shutil.rmtree(folder)
    if arguments.json:
        print(json.dumps(results, indent=1))
    else:
        for name, value in results.items():
            print(f"{name:<48} {value:10.4f}")
    query_s = results["stage 1, warm s"] + results["stage 2, 20 videos of 75 clips s"]
    if arguments.limit is not None and query_s > arguments.limit:
        raise SystemExit(f"a query takes {query_s:.2f} s, more than {arguments.limit:g} s")


if __name__ == "__main__":
    main()
