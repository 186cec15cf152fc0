"""Made-up videos through encoding and extraction: the annotations' keys, times and masks meet the tokens."""

from pathlib import Path

import numpy as np

from qle.backbones import BackboneRequest
from qle.cache.reader import open_cache
from qle.data.annotations import read_annotations
from qle.data.masks import read_masks
from qle.extract.request import ExtractRequest, TokenOptions
from qle.extract.run import run
from qle.extract.sampling import Sampling
from qle.synthetic.script import SyntheticConfig
from qle.synthetic.write import write_synthetic


def test_tokens_where_the_thing_is_differ_from_the_wall(tmp_path: Path) -> None:
    """In each row in which an object is seen, the tokens below its mask are further from the row's median token."""
    config = SyntheticConfig(num_train=1, num_val=0, num_test=1, num_composition=0, seconds=6, size=96)
    write_synthetic(tmp_path / "made", config, num_processes=1)
    request = ExtractRequest(
        inputs=(str(tmp_path / "made" / "videos"),), cache=tmp_path / "cache", root=tmp_path / "made" / "videos",
        backbones=(BackboneRequest(name="tiny"),), sampling=Sampling(mode="fps", fps=4), tokens=TokenOptions(),
        devices=("cpu",), num_workers=1, durability="none",
    )  # fmt: skip
    assert run(request, lambda progress: None).exit_code == 0
    space = open_cache(tmp_path / "cache").space()
    file = tmp_path / "made" / "annotations" / "train.jsonl"
    present = [annotation for annotation in read_annotations(file) if annotation.is_present]
    assert {annotation.video for annotation in present} < set(space) == {"train/000.mp4", "test/000.mp4"}
    video = space.video("train/000.mp4")
    patch, pts_s = np.asarray(video.patch[:], np.float32), np.asarray(video.pts)
    assert len(pts_s) == 24
    farther = []
    for annotation in present:
        track = read_masks(file, annotation.masks)
        for time_s, mask in zip(track.times_s, track.masks, strict=True):
            row = int(np.abs(pts_s - time_s).argmin())
            assert abs(pts_s[row] - time_s) < 0.01
            distance = np.linalg.norm(patch[row] - np.median(patch[row], axis=(0, 1)), axis=-1)
            covered = mask.reshape(14, 4, 14, 4).mean(axis=(1, 3)) > 0.5
            if covered.any():
                farther.append(distance[covered].mean() > 1.3 * distance[~covered].mean())
    assert np.mean(farther) > 0.8
