"""Stands in for your own data: features of videos and queries, and annotations, in the layout of QVHighlights.

    python make_features.py  ->  data/slowfast/VID.npz [features]     data/clip/VID.npz [features]: a row for every 2 s
                                 data/words/qidQID.npz [last_hidden_state, pooler_output]
                                 data/highlight_train.jsonl           data/highlight_val.jsonl

Nothing was ever filmed: a video is noise, and while something happens, its vector lies on top. As in CLIP, the vectors of frames
and of words have to do with each other; those of motion do not. So something can be found, and it is known what.
"""

import argparse
import json
from pathlib import Path

import numpy as np

CLIP_S = 2
SCENES = ("a dog runs", "people eat", "a car drives by", "someone plays the guitar", "a child laughs", "rain falls")
NUM_TRAIN, NUM_VAL = 48, 16
EVENTS = 2
"""Things that happen in a video, each a query."""
SLOWFAST_DIM, CLIP_DIM = 48, 32
LONG_CLIPS = 100
"""Of every eighth video: 200 s, where the others have up to a minute."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Make features, words and annotations to try things out with.")
    parser.add_argument("--out", type=Path, default=Path("data"))
    out = parser.parse_args().out
    for name in ("slowfast", "clip", "words"):
        (out / name).mkdir(parents=True, exist_ok=True)
    scenes = np.random.default_rng(0)
    looks, motions = (scenes.normal(size=(len(SCENES), dim)) for dim in (CLIP_DIM, SLOWFAST_DIM))
    vocabulary = {word: scenes.normal(size=CLIP_DIM) for scene in SCENES for word in scene.split()}
    rows: dict[str, list[dict]] = {"train": [], "val": []}
    for number in range(NUM_TRAIN + NUM_VAL):
        rng = np.random.default_rng([1, number])
        num_clips = LONG_CLIPS if number % 8 == 7 else int(rng.integers(20, 33))
        vid = f"video{number:02d}_0.0_{num_clips * CLIP_S}.0"
        slowfast, clip = rng.normal(size=(num_clips, SLOWFAST_DIM)), rng.normal(size=(num_clips, CLIP_DIM))
        for scene in rng.permutation(len(SCENES))[:EVENTS].tolist():
            length = int(rng.integers(12, 25) if num_clips == LONG_CLIPS else rng.integers(4, 11))
            start = int(rng.integers(0, num_clips - length))
            stop = start + length
            slowfast[start:stop] += 2 * motions[scene]
            clip[start:stop] += 2 * looks[scene]
            split = rows["train" if number < NUM_TRAIN else "val"]
            qid = 2 * number + len(split) % EVENTS
            split.append(annotation(qid, SCENES[scene], vid, num_clips, start, stop, rng))
            words = np.stack([vocabulary[word] for word in SCENES[scene].split()]) + looks[scene]
            save(out / "words" / f"qid{qid}.npz", last_hidden_state=words, pooler_output=looks[scene])
        save(out / "slowfast" / f"{vid}.npz", features=slowfast)
        save(out / "clip" / f"{vid}.npz", features=clip)
    for split, split_rows in rows.items():
        (out / f"highlight_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in split_rows))
    print(f"{NUM_TRAIN + NUM_VAL} videos, {sum(map(len, rows.values()))} queries in {out}/")


def annotation(qid: int, query: str, vid: str, num_clips: int, start: int, stop: int, rng: np.random.Generator) -> dict:
    """A row of QVHighlights: a window in seconds, and how three people rate its clips from 0 to 4."""
    return {
        "qid": qid,
        "query": query,
        "vid": vid,
        "duration": num_clips * CLIP_S,
        "relevant_windows": [[start * CLIP_S, stop * CLIP_S]],
        "relevant_clip_ids": list(range(start, stop)),
        "saliency_scores": rng.integers(2, 5, (stop - start, 3)).tolist(),
    }


def save(path: Path, **arrays: np.ndarray) -> None:
    np.savez(path, **{name: array.astype(np.float32) for name, array in arrays.items()})


if __name__ == "__main__":
    main()
