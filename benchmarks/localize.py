"""What the cache is worth to somebody who searches: queries over a cached video, and runs that extract it anew for each.

    python benchmarks/localize.py [--backbone tiny|m2crl-like] [--grid 14|7] [--seconds 60] [--fps 1] [--queries 10]
        [--hour-queries 1,10,100] [--text tiny|minilm] [--device auto] [--skip-hour] [--json]

1. One video of --seconds is made and extracted. Then all queries in one `localize` over the cache, against one `localize
   --video` without a cache, times the number of queries (each such run is measured once a repeat: they are alike).
   The run is loaded in both. The ratio of the issue is `times_faster`.
2. An hour of rows at --fps in a space of the same shape (random tokens: a head does not mind), and the seconds for one, ten, a
   hundred queries; beside them the seconds for reading the tokens alone and for the head alone, of which the larger binds.

m2crl-like has random weights of the real size (ViT-B/16, clips of 8). Disk: an hour of m2crl tokens at 1 row a second is
1.1 GB on 14x14 maps and 0.3 GB on 7x7, in a temporary folder.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from extract import make_videos
from forward import random_weights

from qle.backbones import BackboneRequest, build_backbone
from qle.cache.reader import Space, Video, open_cache
from qle.cache.records import SourceFacts
from qle.cache.spaces import create_space
from qle.cache.writer import VideoWriter
from qle.config import config_to_dict
from qle.extract.request import ExtractRequest, TokenOptions
from qle.extract.run import run as extract
from qle.extract.sampling import Sampling
from qle.heads import build_head
from qle.heads.base import TokenShapes
from qle.localize.request import LocalizeRequest
from qle.localize.run import localize
from qle.runs.load import load_run
from qle.runs.record import RunRecord, SpaceUse, save_run
from qle.runtime import resolve_device
from qle.segments.tracks import Localization
from qle.tasks.rows.scoring import RowScorer
from qle.text import TextRequest, build_text_encoder
from qle.types import Query, RowPlan, SourceFingerprint

WORDS = (
    "a green polyp",
    "a red polyp",
    "the grasper enters",
    "a water jet",
    "smoke",
    "blood",
    "a clip is placed",
    "suction",
)
HOUR_S = 3600


def queries(count: int) -> list[str]:
    """Distinct ones of the usual length."""
    return [f"{WORDS[number % len(WORDS)]} on the left side, number {number}" for number in range(count)]


def make_run(folder: Path, space: Space, text_name: str) -> Path:
    """As training leaves it, with random weights: time does not depend on them."""
    torch.manual_seed(0)
    text = build_text_encoder(TextRequest(name=text_name), "cpu")
    streams = {stream.name: stream.row_shape for stream in space.record.streams}
    head = build_head("qle", {}, TokenShapes(streams=streams, text_dim=text.dim, sentence_dim=text.sentence_dim))
    use = SpaceUse(
        name=space.record.name, hash=space.record.hash, hashed=space.record.hashed, streams=streams, rate_fps=None
    )
    record = RunRecord(
        head="qle", head_config=config_to_dict(head.config), text=text.spec(), text_dim=text.dim,
        sentence_dim=text.sentence_dim, space=use, localization=Localization(), priors=None, settings={}, selection={},
        versions={}, created=datetime.now(UTC),
    )  # fmt: skip
    save_run(folder, record, head, text.train_state(), {})
    return folder


def make_hour(cache: Path, space: Space, fps: float) -> Video:
    """An hour of tokens in a space of the same meaning; the same thousand rows over and over."""
    folder = create_space(cache, space.record.spec)
    num_rows = round(HOUR_S * fps)
    rng = np.random.default_rng(0)
    block = {
        stream.name: rng.standard_normal((min(1000, num_rows), *stream.row_shape), np.float32).astype(np.float16)
        for stream in space.record.streams
    }
    count = np.arange(num_rows)
    plan = RowPlan(frame_index=count, pts_s=count / fps, is_valid=np.ones(num_rows, bool))
    source = SourceFacts(
        path="/hour.mp4", fingerprint=SourceFingerprint(size=1, mtime_ns=1, edge_hash="0" * 32), duration_s=float(HOUR_S), fps=fps
    )  # fmt: skip
    with VideoWriter.open(folder, "hour.mp4", plan, source, durability="none") as writer:
        for start in range(0, num_rows, 1000):
            rows = count[start : start + 1000]
            for name, values in block.items():
                writer.write(name, rows, values[: len(rows)])
        writer.commit()
    return Space(folder).video("hour.mp4")


def best_s(call: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several calls: the others were disturbed."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def cached_against_anew(
    options: argparse.Namespace, folder: Path, run: Path, weights: Path | None
) -> dict[str, object]:
    """Part 1."""
    asked = tuple(Query(text=text) for text in queries(options.queries))
    film = str(folder / "videos" / "0.mp4")

    def cached() -> None:
        localize(LocalizeRequest(checkpoint=run, queries=asked, cache=folder / "cache", device=options.device))

    def anew() -> None:
        localize(
            LocalizeRequest(
                checkpoint=run,
                queries=asked[:1],
                videos=(film,),
                weights=() if weights is None else (str(weights),),
                device=options.device,
            )
        )

    cached()  # the first one pays for imports
    cached_s, anew_s = best_s(cached, options.repeats), best_s(anew, options.repeats)
    return {
        "queries": options.queries, "video_s": options.seconds, "cached_s": round(cached_s, 3),
        "one_run_anew_s": round(anew_s, 3), "times_faster": round(options.queries * anew_s / cached_s, 1),
    }  # fmt: skip


def hour(video: Video, run: Path, counts: Sequence[int], device: torch.device, repeats: int) -> list[dict[str, object]]:
    """Part 2, one line a number of queries."""
    loaded = load_run(run, device)
    scorer = RowScorer(loaded.head, loaded.text, device=device, rate_fps=None)  # type: ignore[arg-type]
    streams = loaded.head.streams
    block = 256

    def read() -> None:
        for start in range(0, video.num_rows, block):
            for name in streams:
                video.read(name, start, min(start + block, video.num_rows))

    read()
    read_s = best_s(read, repeats)
    scorer.score(video, queries(1))
    lines: list[dict[str, object]] = []
    for count in counts:
        total_s = best_s(lambda: scorer.score(video, queries(count)), repeats)  # noqa: B023 - called before the next turn
        head_s = max(0.0, total_s - read_s)
        lines.append({
            "rows": video.num_rows, "queries": count, "seconds": round(total_s, 2), "reading_s": round(read_s, 2),
            "ms_a_row_and_query": round(1e3 * total_s / video.num_rows / count, 3),
            "binds": "head" if head_s > read_s else "reading",
        })  # fmt: skip
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tiny", choices=("tiny", "m2crl-like"))
    parser.add_argument("--grid", type=int, default=14, choices=(14, 7))
    parser.add_argument("--seconds", type=float, default=60, help="of the video of part 1")
    parser.add_argument("--fps", type=float, default=1, help="rows a second, in both parts")
    parser.add_argument("--queries", type=int, default=10, help="of part 1")
    parser.add_argument("--hour-queries", default="1,10,100")
    parser.add_argument("--text", default="tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--skip-hour", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    device = resolve_device(options.device)
    num_threads = torch.get_num_threads()  # extraction takes them one by one, and torch would remember that
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "videos").mkdir()
        make_videos(folder / "videos", 1, options.seconds)
        weights = random_weights(folder) if options.backbone == "m2crl-like" else None
        backbone = BackboneRequest(name="tiny" if weights is None else "m2crl", weights=weights)
        native = build_backbone(backbone).streams[0].row_shape[0]
        extract(
            ExtractRequest(
                inputs=(str(folder / "videos"),), cache=folder / "cache", backbones=(backbone,),
                sampling=Sampling(mode="fps", fps=options.fps),
                tokens=TokenOptions(grid=None if options.grid == native else options.grid), devices=(options.device,),
            ),
            lambda progress: None,
        )  # fmt: skip
        torch.set_num_threads(num_threads)
        space = open_cache(folder / "cache").space()
        run = make_run(folder / "run", space, options.text)
        facts: dict[str, object] = {
            "backbone": options.backbone, "space": space.record.name, "device": str(device), "threads": num_threads,
            "torch": torch.__version__,
        }  # fmt: skip
        lines = [facts, cached_against_anew(options, folder, run, weights)]
        if not options.skip_hour:
            counts = [int(count) for count in options.hour_queries.split(",")]
            lines += hour(make_hour(folder / "hour", space, options.fps), run, counts, device, options.repeats)
    for line in lines:
        print(json.dumps(line) if options.json else "  ".join(f"{name} {value}" for name, value in line.items()))


if __name__ == "__main__":
    main()
