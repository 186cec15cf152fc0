"""A small file in the documented format of every dataset, made up: what readers and writers of datasets are tested on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Sample:
    """How the file is made, read and given back."""

    reader: str
    """Key of READERS."""
    writer: str | None
    """Key of WRITERS; None: nobody needs this format back."""
    name: str
    """Of the file."""
    content: str
    num_annotations: int
    extra: tuple[str, str, str] | None = None
    """Option of the reader, name and content of its file."""
    loses: frozenset[str] = frozenset()
    """Fields that the writer's format cannot hold."""
    options: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> tuple[Path, dict[str, Any]]:
        """The file, and the options that it is read with."""
        path, options = folder / self.name, dict(self.options)
        path.write_bytes(self.content.encode())
        if self.extra is not None:
            option, name, content = self.extra
            (folder / name).write_bytes(content.encode())
            options[option] = folder / name
        return path, options


def lines(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


QVHIGHLIGHTS = [
    {"qid": 7, "query": "a cat sleeps", "duration": 10, "vid": "x_0.0_10.0", "relevant_windows": [[0, 2], [6, 10]],
     "relevant_clip_ids": [0, 3, 4], "saliency_scores": [[4, 3, 0], [1, 2, 4], [2, 2, 2]]},
    {"qid": 8, "query": "it rains", "duration": 8, "vid": "x_10.0_18.0"},
]  # fmt: skip
LIGHTHOUSE = [
    {"qid": "z9_0", "query": " he opens a door", "duration": 30.96, "vid": "z9", "relevant_windows": [[24.3, 30.4]]},
    {"qid": "z9_1", "query": "he leaves", "duration": 30.96, "vid": "z9", "relevant_windows": [[0, 3.5]]},
]
CHARADES = (
    "AAAAA 24.3 30.4##a person turns on a light.\nAAAAA 0.0 4.0##a person sits.\nBBBBB 1.5 19.0##a dog ## barks.\n"
)
LENGTHS = "id,subject,length\nAAAAA,P1,31.2\nBBBBB,P2,18.25\n"
CG = {
    "AO8RW": {
        "sentences": ["he puts a book on a shelf.", "he sits."],
        "timestamps": [[0.0, 6.9], [30.0, 35.0]],
        "duration": 33.67,
        "novels": [{"v-adv": [["put", "on"]]}, {}],
    }
}
CD = {
    "QM4AD": {
        "framestamps": [[283, 374]], "decode_fps": 16.0, "encoded_sentences": [[1, 38]], "sentences": ["he puts it down"],
        "video_fps": -1.0, "timestamps": [[17.7, 23.4]], "video_duration": 23.5625,
    }
}  # fmt: skip
TACOS = {
    "s17-d69.avi": {
        "timestamps": [[201, 487], [501, 954]], "sentences": ["He peels it.", "He cuts."], "fps": 29.4, "num_frames": 954,
    },
    "s25-d35.avi": {"timestamps": [[0, 101]], "sentences": ["She washes it."], "fps": 25, "num_frames": 300},
}  # fmt: skip
ACTIVITYNET = {
    "v_a": {"duration": 55.15, "timestamps": [[0.28, 55.15], [13, 54.32]], "sentences": ["He lifts.", " The coach helps."]},
    "v_b": {"duration": 73.1, "timestamps": [[0, 10.23]], "sentences": ["A man speaks."]},
}  # fmt: skip
DIDEMO = (
    "success,video_path,starts,ends,text,formatted_data\r\n"
    'True,/data/all_videos/26292851@N04_42.5.m4v,tensor([[0]]),tensor([[31]]),"a man, in red\nkicks it. he leaves",'
    "/data/formatted/test_data_id_0.pth\r\n"
    "True,/data/all_videos/510.mpg,tensor([5]),tensor([25]),a dog jumps,/data/formatted/test_data_id_123.pth\r\n"
)
MSRVTT = (
    "key,vid_key,video_id,sentence\nret0,msr9770,video9770,a person connects something\nret1,msr9771,video9771,"
    '"a girl, smiling, does gymnastics"\n'
)
MSRVTT_LIST = "video_id\nvideo1\nvideo0\n"
MSRVTT_DATA = {
    "info": {"year": "2016"},
    "videos": [
        {"video_id": "video0", "split": "train"}, {"video_id": "video1", "split": "train"},
        {"video_id": "video2", "split": "validate"},
    ],
    "sentences": [
        {"caption": "a car drives", "video_id": "video0", "sen_id": 11},
        {"caption": "a man sings", "video_id": "video1", "sen_id": 12},
        {"caption": "somebody drives  a car", "video_id": "video0", "sen_id": 13},
        {"caption": "a fish swims", "video_id": "video2", "sen_id": 14},
    ],
}  # fmt: skip
TVSUM = [
    {"qid": "-es", "query": "#1: FLAT TIRE", "duration": 3, "vid": "-es", "relevant_clip_ids": None, "relevant_windows": None,
     "label": [[5.0, 3.0, 1.0], [2.0, 2.0, 2.0], [1.0, 4.0, 5.0]], "domain": "VT"},
]  # fmt: skip
TACOS_CG = [
    {"video_id": "s17-d69.avi", "summarized_sentence": "A man cooks an egg.", "fps": 29.4, "num_frames": 12438},
    {"video_id": "s17-d69.avi", "summarized_sentence": "An egg is fried.", "fps": 29.4, "num_frames": 12438},
    {"video_id": "s25-d35.avi", "summarized_sentence": "A plum is cut.", "fps": 29.4, "num_frames": 900},
]

SAMPLES: dict[str, Sample] = {
    "qvhighlights": Sample(
        reader="qvhighlights", writer="qvhighlights", name="val.jsonl", content=lines(QVHIGHLIGHTS), num_annotations=2
    ),
    "lighthouse": Sample(
        reader="qvhighlights", writer="lighthouse", name="val.jsonl", content=lines(LIGHTHOUSE), num_annotations=2
    ),
    "charades": Sample(
        reader="charades", writer="charades-sta", name="charades_sta_test.txt", content=CHARADES, num_annotations=3,
        extra=("durations", "charades_sta_test_lengths.csv", LENGTHS),
    ),
    "charades-jsonl": Sample(
        reader="charades", writer="lighthouse", name="test.jsonl", content=lines(LIGHTHOUSE), num_annotations=2
    ),
    "charades-cg": Sample(
        reader="charades-cg", writer="activitynet", name="novel_composition.json", content=json.dumps(CG),
        num_annotations=2, loses=frozenset({"origin"}),
    ),
    "charades-cd": Sample(
        reader="charades-cd", writer="activitynet", name="train.json", content=json.dumps(CD), num_annotations=1
    ),
    "tacos": Sample(
        reader="tacos", writer="tacos", name="train.json", content=json.dumps(TACOS, indent=1), num_annotations=3
    ),
    "tacos-jsonl": Sample(
        reader="tacos", writer="lighthouse", name="test.jsonl", content=lines(LIGHTHOUSE), num_annotations=2
    ),
    "tacos-cg": Sample(
        reader="tacos-cg", writer="tacos-cg", name="tacos_cg.json", content=json.dumps(TACOS_CG), num_annotations=3
    ),
    "activitynet": Sample(
        reader="activitynet", writer="activitynet", name="val_1.json", content=json.dumps(ACTIVITYNET), num_annotations=3
    ),
    "activitynet-jsonl": Sample(
        reader="activitynet", writer="lighthouse", name="val.jsonl", content=lines(LIGHTHOUSE), num_annotations=2
    ),
    "didemo": Sample(reader="didemo", writer="didemo", name="test.csv", content=DIDEMO, num_annotations=2),
    "didemo-by-id": Sample(
        reader="didemo", writer=None, name="test.csv", content=DIDEMO, num_annotations=2, options={"by_id": True}
    ),
    "msrvtt": Sample(reader="msrvtt", writer="msrvtt", name="test.csv", content=MSRVTT, num_annotations=2),
    "msrvtt-list": Sample(
        reader="msrvtt", writer="msrvtt", name="train.csv", content=MSRVTT_LIST, num_annotations=3,
        extra=("captions", "MSRVTT_data.json", json.dumps(MSRVTT_DATA)), loses=frozenset({"split"}),
    ),
    "msrvtt-all": Sample(
        reader="msrvtt", writer="msrvtt", name="MSRVTT_data.json", content=json.dumps(MSRVTT_DATA, indent=2),
        num_annotations=4, loses=frozenset({"split"}),
    ),
    "tvsum": Sample(reader="tvsum", writer="tvsum", name="val.jsonl", content=lines(TVSUM), num_annotations=1),
}  # fmt: skip
