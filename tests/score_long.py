"""Run by test_predict in a process of its own: scores one video with twenty queries, prints what memory it took.

python score_long.py SPACE KEY -> resident MiB before, peak MiB after, tracks, rows
"""

import resource
import sys
from pathlib import Path

import torch

from qle.cache.reader import Space
from qle.cache.spaces import open_space
from qle.heads import build_head
from qle.heads.base import TokenShapes
from qle.heads.rows import RowHead
from qle.tasks.rows.scoring import RowScorer
from qle.text import TextRequest, build_text_encoder
from qle.text.bank import QueryBank

TINY = {"dim": 8, "num_layers": 1, "num_heads": 2, "temporal_heads": 2, "temporal_layers": 1, "reach_rows": 16}


def main() -> None:
    torch.set_num_threads(1)
    space = Space(open_space(Path(sys.argv[1])))
    video = space.video(sys.argv[2])
    shapes = {stream.name: stream.row_shape for stream in space.record.streams}
    head = build_head("qle", TINY, TokenShapes(streams=shapes, text_dim=8, sentence_dim=8)).eval()
    assert isinstance(head, RowHead)
    text = QueryBank(build_text_encoder(TextRequest(name="tiny", dim=8), "cpu"))
    scorer = RowScorer(head, text, device=torch.device("cpu"), rate_fps=None, memory_bytes=12 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracks = scorer.score(video, [f"query number {number}" for number in range(20)])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(before / 1024, peak / 1024, len(tracks), len(tracks[0].logit))


if __name__ == "__main__":
    main()
