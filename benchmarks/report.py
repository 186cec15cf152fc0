"""How long a report over many videos takes: `qle localize --report`, all of it, beside the same without a page.

    python benchmarks/report.py [--videos 60] [--queries 2] [--frames 6] [--limit 20] [--folder FOLDER] [--json]

The videos are those of `qle demo` (20 s, 224 pixels a side, 1 row a second, 10 x 10 cells), so is the head, with random weights
and a threshold of 0.5, so that most answers have moments to explain. Each answer gets 6 frames with their maps, and what moved
the score of its best moment. Measured is a process of its own, imports and loading included, by the clock and by its CPU seconds,
which say more where others share the machine.

limit: what no page can do without, in CPU seconds of the same run: decoding the frames that are shown, and encoding each of them
and its colours once. FOLDER keeps the videos and their tokens for another run.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from qle.backbones import BackboneRequest
from qle.cache.reader import Space, open_cache
from qle.config import config_to_dict, load_preset
from qle.explain.overlay import tint
from qle.explain.pictures import data_uri
from qle.extract.request import ExtractRequest, TokenOptions
from qle.extract.run import run as extract
from qle.extract.sampling import Sampling
from qle.extract.source_frames import frames_of
from qle.heads import build_head
from qle.heads.base import TokenShapes
from qle.runs.record import RunRecord, save_run, space_use
from qle.segments.tracks import Localization
from qle.synthetic.script import SyntheticConfig
from qle.synthetic.write import write_synthetic
from qle.text import TextRequest, build_text_encoder

WORDS = ("a green polyp", "the grasper enters from the left", "a jet of water", "a purple clip")


def make(folder: Path, num_videos: int) -> None:
    """made/, cache/ and run/, where they are not there yet."""
    videos = folder / "made" / "videos"
    if not videos.exists():
        config = SyntheticConfig(
            num_train=0, num_val=0, num_test=num_videos, num_composition=0, seconds=20, fps=2, size=224
        )
        write_synthetic(folder / "made", config)
    if not (folder / "cache").exists():
        request = ExtractRequest(
            inputs=(str(videos),), cache=folder / "cache", root=videos, backbones=(BackboneRequest(name="tiny"),),
            sampling=Sampling(mode="fps", fps=1), tokens=TokenOptions(grid=10), devices=("cpu",), durability="none",
        )  # fmt: skip
        extract(request, lambda progress: None)
    if not (folder / "run").exists():
        make_run(folder / "run", open_cache(folder / "cache").space())


def make_run(folder: Path, space: Space) -> None:
    """The head of the demo with random weights."""
    torch.manual_seed(0)
    text = build_text_encoder(TextRequest(name="minilm"), "cpu")
    use = space_use(space, None)
    settings = {name: value for name, value in load_preset("qle/demo")["head"].items() if name != "name"}
    shapes = TokenShapes(streams=use.streams, text_dim=text.dim, sentence_dim=text.sentence_dim)
    head = build_head("qle", settings, shapes)
    for parameter in head.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
    record = RunRecord(
        head="qle", head_config=config_to_dict(head.config), text=text.spec(), text_dim=text.dim,
        sentence_dim=text.sentence_dim, space=use, localization=Localization(threshold=0.5), priors=None, settings={},
        selection={}, versions={}, created=datetime.now(UTC),
    )  # fmt: skip
    save_run(folder, record, head, text.train_state(), {})


def timed(line: list[str]) -> tuple[float, float]:
    """(seconds by the clock, CPU seconds) of a command."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def limit_s(space: Space, keys: list[str], num_pictures: int) -> float:
    """CPU seconds of decoding and encoding that many pictures of each video, and nothing else."""
    started = time.process_time()
    for key in keys:
        video = space.video(key)
        frames = frames_of(Path(video.record.source.path), np.linspace(0, video.num_rows - 1, num_pictures).astype(int))
        for frame in frames:
            data_uri(frame)
            data_uri(
                tint(np.random.default_rng(0).random((10, 10)), 1.0, (frame.shape[0] // 3, frame.shape[1] // 3)),
                exact=True,
            )
    return time.process_time() - started


def measure(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    make(folder, options.videos)
    space = open_cache(folder / "cache").space()
    keys = list(space.keys())[: options.videos]
    ask = [
        sys.executable,
        "-m",
        "qle",
        "localize",
        "-q",
        "--checkpoint",
        str(folder / "run"),
        "--cache",
        str(folder / "cache"),
    ]
    ask += [part for key in keys for part in ("--video-id", key)]
    ask += [part for words in WORDS[: options.queries] for part in ("--query", words)]
    page = folder / "report.html"
    bare_s, bare_cpu_s = timed(ask)
    whole_s, whole_cpu_s = timed([*ask, "--report", str(page), "--frames", str(options.frames)])
    least_s = limit_s(space, keys, options.queries * options.frames)
    return {
        "videos": len(keys), "queries": options.queries, "report_s": round(whole_s, 1), "report_cpu_s": round(whole_cpu_s, 1),
        "without_page_s": round(bare_s, 1), "without_page_cpu_s": round(bare_cpu_s, 1), "limit_cpu_s": round(least_s, 1),
        "times_limit": round((whole_cpu_s - bare_cpu_s) / least_s, 2), "page_mb": round(page.stat().st_size / 1e6, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--queries", type=int, default=2, choices=range(1, len(WORDS) + 1))
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--limit", type=float, help="exit 1 where a report takes longer, by the clock")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp:
        found = measure(options, options.folder or Path(temp))
    print(json.dumps(found) if options.json else "\n".join(f"{name:20} {value}" for name, value in found.items()))
    if options.limit is not None and found["report_s"] > options.limit:
        sys.exit(1)


if __name__ == "__main__":
    main()
