"""Every command that writes, with its places left open: COMMANDS[name], COPIES[name] -> placed -> lines to be run."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ONE_STEP = ("--device", "cpu", "--track", "none", "-q", "--set", "train.steps=1", "--set", "train.eval_every=1")
COMMANDS: dict[str, tuple[str, ...]] = {
    "extract": ("extract", "W/made/videos", "--cache", "D/cache", "--backbone", "tiny", "--fps", "native", "--device", "cpu",
                "--workers", "1", "-q"),
    "extract hdf5": ("extract", "W/made/videos", "--cache", "D/cache", "--backbone", "tiny", "--fps", "native", "--device", "cpu",
                     "--workers", "1", "-q", "--store", "hdf5"),
    "prepare synthetic": ("prepare", "synthetic", "D/made", "--train", "2", "--val", "0", "--test", "0", "--composition", "0",
                          "--seconds", "8", "--size", "160"),
    "demo": ("demo", "D/demo", "--videos", "2", "--steps", "1", "-q"),
    "prepare intervals": ("prepare", "intervals", "W/intervals.csv", "--out", "D/out.jsonl", "--overwrite"),
    "prepare export": ("prepare", "export", "W/val.jsonl", "--to", "qvhighlights", "--out", "D/out.jsonl", "--overwrite"),
    "prepare to-triplets": ("prepare", "to-triplets", "W/val.jsonl", "--out", "D/out.csv", "--overwrite"),
    "prepare words": ("prepare", "words", "W/words", "--annotations", "W/val.jsonl", "--allow-missing", "--out",
                      "D/words.safetensors", "--overwrite"),
    "train-heads": ("train-heads", "--cache", "W/planted/cache", "--annotations", "W/planted/train.jsonl", "--val",
                    "W/planted/val.jsonl", "--out", "D/run", *ONE_STEP, "--set", "head.dim=64", "--set", "head.num_heads=2"),
    "localize": ("localize", "--checkpoint", "W/run", "--cache", "W/cache", "--query", "smoke", "--device", "cpu", "-q",
                 "--out", "D/out.json", "--report", "D/report.html", "--heatmaps", "D/maps"),
    "localize a film": ("localize", "--checkpoint", "W/run", "--video", "W/made/videos/test/000.mp4", "--query", "smoke",
                        "--device", "cpu", "-q", "--out", "D/out.json"),
    "explain": ("explain", "--checkpoint", "W/run", "--cache", "W/cache", "--device", "cpu", "-q", "--query", "smoke",
                "--video-id", "test/000.mp4", "--report", "D/report.html", "--heatmaps", "D/maps"),
    "explain a film": ("explain", "--checkpoint", "W/run", "--cache", "W/cache", "--device", "cpu", "-q", "--query", "smoke",
                       "--video-id", "test/000.mp4", "--overlay-video", "D/film.mp4"),
    "explain measures": ("explain", "--faithfulness", "--checkpoint", "W/run", "--cache", "W/cache", "--annotations",
                         "W/made/annotations/test.jsonl", "--max-rows", "2", "--device", "cpu", "-q", "--out", "D/out.json"),
    "eval": ("eval", "--checkpoint", "W/run", "--cache", "W/cache", "--annotations", "W/made/annotations/test.jsonl", "--device",
             "cpu", "-q", "--out", "D/out.json"),
    "search": ("search", "--query", "hook in the kitchen", "--cache", "D/cache", "--retriever", "W/retriever", "--localizer",
               "W/localizer", "--device", "cpu", "-q", "--out", "D/out.json"),
    "checkpoint export": ("checkpoint", "export", "W/localizer", "--out", "D/model.ckpt"),
    "checkpoint import": ("checkpoint", "import", "--from", "qd-detr", "W/model.ckpt", "--out", "D/run"),
    "cache convert": ("cache", "convert", "D/cache", "--store", "hdf5", "-q"),
    "cache convert int8": ("cache", "convert", "D/cache", "--dtype", "int8", "--to", "D/other", "-q"),
    "cache pack": ("cache", "pack", "D/cache", "-q"),
    "cache merge": ("cache", "merge", "W/cache", "--into", "D/cache", "-q"),
    "cache import": ("cache", "import", "D/cache", "--from", "W/features", "--name", "mine", "--fps", "1", "-q"),
    "cache export": ("cache", "export", "W/cache", "--to", "D/out", "--stream", "patch", "-q"),
    "cache export h5": ("cache", "export", "W/cache", "--to", "D/out.h5", "--stream", "patch", "-q"),
    "cache prune": ("cache", "prune", "D/cache", "--yes"),
    "cache verify": ("cache", "verify", "D/cache", "--deep"),
    "cache inspect": ("cache", "inspect", "D/cache", "--video", "test/000.mp4", "--picture", "D/strip.png"),
}  # fmt: skip
"""D: the folder that is written to. W: what is there already."""

IN_PLACE = ("cache convert", "cache convert int8", "cache pack", "cache prune", "cache verify", "cache inspect")
COPIES = {"search": {"planted-search/cache": "cache"}, **{name: {"cache": "cache"} for name in IN_PLACE}}


def placed(world: Path, disk: Path) -> dict[str, dict[str, Any]]:
    """By command, its line and what has to be copied below `disk` before, with D and W filled in."""
    folders = {"W": world, "D": disk}

    def filled(part: str) -> str:
        return str(folders[part[0]] / part[2:]) if part[1:2] == "/" and part[0] in folders else part

    return {
        name: {
            "line": [filled(part) for part in line],
            "copies": {str(world / source): target for source, target in COPIES.get(name, {}).items()},
        }
        for name, line in COMMANDS.items()
    }


def copy_into(disk: Path, copies: Mapping[str, str]) -> None:
    """What a command changes."""
    for source, target in copies.items():
        (shutil.copytree if Path(source).is_dir() else shutil.copy)(source, disk / target)
