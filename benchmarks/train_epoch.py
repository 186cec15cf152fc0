"""An epoch of QD-DETR on QVHighlights-shaped features: the official loop against ours, on the same files.

    python benchmarks/train_epoch.py --official FOLDER [--items 640] [--device cpu] [--workers 4] [--json]

FOLDER is a checkout of wjun0830/QD-DETR (its program is run as it is, but for one tensor that it moves to a GPU); without it
only ours is measured. The data are random: 75 clips of SlowFast (2304) and CLIP (512), 5-20 words of 512, one moment, ratings;
batch 32, published sizes. `official`: its dataset (three .npz an item), DataLoader, model, criterion and `train_epoch`.
`ours`: the same features imported into a cache, packed once, and `qle train-heads` with the preset qd_detr/qvhighlights, in
float32 and in bfloat16. Seconds of an epoch, the best of two after a first one; page cache warm.

`network` is the limit: our model forward and backward on batches that are there already, without optimiser and losses.
`loss_share` is how much matcher and losses, with their own backward pass, are of the two together.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir, closing
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import torch

from qle.cache.tools.interchange import ImportOptions, import_features
from qle.config import load_preset, override
from qle.heads.moments import MomentBatch
from qle.tasks.moments.training import MomentTraining
from qle.text.words_file import write_stored_words
from qle.train.progress import TrainStatus
from qle.train.request import TrainRequest, resolve
from qle.train.run import train_heads
from qle.train.setup import build_accelerator
from qle.train.steps.model import TrainedModel

EPOCHS = 4
"""The first warms up, the last ends with a validation."""
CLIPS, STREAMS, WORD_DIM = 75, {"slowfast": 2304, "clip": 512}, 512


def make_files(folder: Path, num_items: int) -> None:
    """What the official program reads: features and annotations."""
    rng = np.random.default_rng(0)
    rows = []
    for name in (*STREAMS, "words"):
        (folder / name).mkdir()
    for item in range(num_items):
        video = f"video{item}_0.0_150.0"
        for name, dim in STREAMS.items():
            np.savez(folder / name / f"{video}.npz", features=rng.standard_normal((CLIPS, dim)).astype(np.float16))
        words = rng.standard_normal((int(rng.integers(5, 21)), WORD_DIM)).astype(np.float16)
        np.savez(folder / "words" / f"qid{item}.npz", last_hidden_state=words, pooler_output=words[0])
        first = int(rng.integers(0, 50))
        clips = list(range(first, first + int(rng.integers(2, 20))))
        rows.append(
            {
                "qid": item, "query": f"query number {item}", "vid": video, "duration": 150,
                "relevant_windows": [[2 * clips[0], 2 * clips[-1] + 2]], "relevant_clip_ids": clips,
                "saliency_scores": rng.integers(0, 5, (len(clips), 3)).tolist(),
            }
        )  # fmt: skip
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


class Official:
    """The published program."""

    def __init__(self, checkout: Path, folder: Path, device: torch.device, workers: int) -> None:
        sys.path.insert(0, str(checkout))
        sys.modules.setdefault("pandas", ModuleType("pandas"))  # it prints options, which nobody asks for here
        from qd_detr import config as options_module
        from qd_detr import start_end_dataset as data
        from qd_detr import train
        from qd_detr.inference import setup_model

        if not sys.modules["pandas"].__spec__:
            del sys.modules["pandas"]  # others ask whether it is there
        options_module.dict_to_markdown = lambda *values, **named: ""

        if device.type == "cpu":
            torch.Tensor.cuda = lambda self, *rest, **named: self  # type: ignore[method-assign]
        arguments = [
            "--dset_name", "hl", "--ctx_mode", "video_tef", "--train_path", str(folder / "train.jsonl"),
            "--eval_path", str(folder / "train.jsonl"), "--eval_split_name", "val",
            "--v_feat_dirs", str(folder / "slowfast"), str(folder / "clip"), "--v_feat_dim", "2816",
            "--t_feat_dir", str(folder / "words"), "--t_feat_dim", str(WORD_DIM), "--bsz", "32",
            "--max_q_l", "32", "--max_v_l", str(CLIPS), "--results_root", str(folder / "results"), "--exp_id", "time",
            "--device", "-1" if device.type == "cpu" else "0", "--num_workers", str(workers),
        ]  # fmt: skip
        before, sys.argv = sys.argv, ["train.py", *arguments]
        with chdir(checkout):  # it copies its own code to the results
            self._options = options_module.BaseOptions().parse()
        sys.argv = before
        self._options.train_log_txt_formatter = "{time_str} {epoch} {loss_str}\n"
        self._train = train
        self._model, self._criterion, self._optimiser, _ = setup_model(self._options)
        dataset = data.StartEndDataset(
            dset_name="hl", data_path=str(folder / "train.jsonl"), v_feat_dirs=self._options.v_feat_dirs,
            q_feat_dir=self._options.t_feat_dir, max_q_l=32, max_v_l=CLIPS, ctx_mode="video_tef",
        )  # fmt: skip
        self._loader = torch.utils.data.DataLoader(
            dataset, collate_fn=data.start_end_collate, batch_size=32, num_workers=workers, shuffle=True,
            pin_memory=device.type == "cuda",
        )  # fmt: skip

    def epoch(self) -> None:
        writer = SimpleNamespace(add_scalar=lambda *values: None)
        self._train.train_epoch(self._model, self._criterion, self._loader, self._optimiser, self._options, 0, writer)


def make_run(folder: Path) -> Path:
    """The same features in a cache, and the words in one file."""
    cache, words, entries = folder / "cache", folder / "words.safetensors", {}
    for name in STREAMS:
        import_features([folder / name], cache, ImportOptions(name=name, clip_length_s=2.0))
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    for row in rows:
        with np.load(folder / "words" / f"qid{row['qid']}.npz") as file:
            entries[row["query"]] = (file["last_hidden_state"], file["pooler_output"])
    write_stored_words(words, entries)
    (folder / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:32]))
    return words


def request_of(folder: Path, words: Path, precision: str, device: str) -> TrainRequest:
    settings = override(
        load_preset("qd_detr/qvhighlights"),
        [f"text.name={words}", f"train.precision={precision}", f"train.epochs={EPOCHS}"],
    )
    return TrainRequest(
        cache=folder / "cache", annotations=folder / "train.jsonl", val=folder / "val.jsonl", head="qd_detr",
        settings=settings, streams=("slowfast", "clip+tef"), out=folder / f"run-{precision}", device=device,
        track="none",
    )  # fmt: skip


def our_epochs(request: TrainRequest) -> tuple[list[float], float]:
    """Seconds of the epochs between the first and the last, and the share of the time that was spent waiting for data."""
    ends: dict[int, float] = {}
    steps: list[int] = []

    def on_status(status: TrainStatus) -> None:
        ends[status.step] = time.perf_counter()
        steps.append(status.num_steps)

    run = train_heads(request, on_status, lambda note: None).runs[0]
    each = steps[-1] // EPOCHS
    seconds = [ends[each * (epoch + 1)] - ends[each * epoch] for epoch in range(1, EPOCHS - 1)]
    return seconds, run.wait_s / run.seconds


def network_seconds(request: TrainRequest) -> tuple[float, float]:
    """(an epoch forward and backward, float32; the share of it that matcher and losses take, their backward pass included)."""
    settings = resolve(request)
    training = MomentTraining.open(request, settings)
    accelerator = build_accelerator(request, "float32", request.out)
    model = training.model(accelerator.device)
    with closing(training.batches(model, accelerator)) as batches:
        batches.set_epoch(0)
        ready = [batch for batch, _ in zip(batches, range(4), strict=False)]
        passes = [_passes(model, ready) for _ in range(3)]
        network, losses = (min(part) for part in zip(*passes, strict=True))
        return network * len(batches) / len(ready), losses / (network + losses)


def _passes(model: TrainedModel, batches: list[MomentBatch]) -> tuple[float, float]:
    """Seconds of the network, and of matcher and losses on what it says."""
    network = losses = 0.0
    for batch in batches:
        started = time.perf_counter()
        output = model.head(batch)
        names = ("logits", "spans", "saliency", "negative_saliency")
        parts = {name: getattr(output, name) for name in names}
        told = time.perf_counter()
        leaves = {name: part.detach().requires_grad_() for name, part in parts.items()}
        model.head.loss(replace(output, **leaves), batch).total.backward()
        taught = time.perf_counter()
        torch.autograd.backward(list(parts.values()), [leaf.grad for leaf in leaves.values()])
        model.zero_grad(set_to_none=True)
        network += time.perf_counter() - taught + told - started
        losses += taught - told
    return network, losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="checkout of wjun0830/QD-DETR")
    parser.add_argument("--items", type=int, default=640)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=4, help="of the official DataLoader")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder, arguments.items)
        words = make_run(folder)
        found: dict[str, object] = {"items": arguments.items, "threads": torch.get_num_threads()}
        plain = request_of(folder, words, "float32", arguments.device)
        found["network_s"], found["loss_share"] = network_seconds(plain)
        for precision in ("float32", "bfloat16"):
            seconds, wait = our_epochs(request_of(folder, words, precision, arguments.device))
            found[f"ours_{precision}_s"], found[f"wait_share_{precision}"] = min(seconds), wait
        if arguments.official is not None:
            official = Official(arguments.official, folder, torch.device(arguments.device), arguments.workers)
            found["official_s"] = min(_seconds(official.epoch) for _ in range(EPOCHS - 1))
    if arguments.json:
        print(json.dumps(found))
        return
    for key, value in found.items():
        print(f"{key:20} {value:.4g}" if isinstance(value, float) else f"{key:20} {value}")


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
