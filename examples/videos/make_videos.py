"""Stands in for your own data: a folder of short videos, and a table of what happens in them.

    python make_videos.py  ->  recordings/clip00.mp4, ...  recordings/long.mp4  events.csv (video, query, start, end, split)

Pink tissue, on which something happens twice in each video: a colour spreads from a point. The table says when; rows
without times name what never happens in that video.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qle.extract.decode.write import write_video

LOOKS = {
    "bleeding": (150, 10, 10),
    "smoke rises": (240, 240, 240),
    "blue dye is sprayed": (40, 60, 230),
    "the green light is on": (30, 200, 60),
    "the lens is covered": (5, 5, 5),
}
"""What may happen, and its colour in the middle."""
SPLITS = {"train": 48, "val": 6, "test": 6}
"""Videos. The last one of the test is long."""
SECONDS, LONG_SECONDS = 20, 100
FPS, HEIGHT, WIDTH = 2, 64, 96
REACH = 40
"""Pixels over which a colour fades."""
EVENTS = 2
"""That a video has; of one more it is known that it does not happen."""

Event = tuple[str, int, int]
"""What happens, and the seconds when it begins and ends."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Make videos and a table of events to try things out with.")
    parser.add_argument("--out", type=Path, default=Path())
    out = parser.parse_args().out
    (out / "recordings").mkdir(parents=True, exist_ok=True)
    splits = [split for split, count in SPLITS.items() for _ in range(count)]
    rows = []
    for number, split in enumerate(splits):
        rng = np.random.default_rng([3, number])
        is_long = number == len(splits) - 1
        name, seconds = ("long.mp4", LONG_SECONDS) if is_long else (f"clip{number:02d}.mp4", SECONDS)
        queries = rng.permutation(list(LOOKS)).tolist()
        events = [event(query, seconds, rng) for query in queries[:EVENTS]]
        write_video(out / "recordings" / name, frames(events, seconds, rng), FPS)
        rows += [[name, query, start, stop, split] for query, start, stop in events]
        rows.append([name, queries[EVENTS], "", "", split])
    with open(out / "events.csv", "w", newline="") as file:
        csv.writer(file).writerows([["video", "query", "start", "end", "split"], *rows])
    print(f"{len(splits)} videos in {out / 'recordings'}, {len(rows)} rows in {out / 'events.csv'}")


def event(query: str, seconds: int, rng: np.random.Generator) -> Event:
    length = int(rng.integers(4, 10))
    start = int(rng.integers(1, seconds - length))
    return query, start, start + length


def frames(events: list[Event], seconds: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    tissue = np.array([190, 120, 110]) + rng.integers(-20, 21, (HEIGHT, WIDTH, 1))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rows, columns = rng.integers(16, HEIGHT - 16, len(events)), rng.integers(16, WIDTH - 16, len(events))
    for number in range(seconds * FPS):
        frame = tissue + rng.integers(-6, 7, (HEIGHT, WIDTH, 1))
        for (query, start, stop), row, column in zip(events, rows, columns, strict=True):
            if start <= number / FPS < stop:
                distance = np.hypot(y - row, x - column)[..., None]
                strength = np.exp(-((distance / REACH) ** 2))
                frame = frame * (1 - strength) + np.array(LOOKS[query]) * strength
        yield frame.astype(np.uint8)


if __name__ == "__main__":
    main()
