"""How fast a frozen encoder runs, and how far that is from what this machine's matrix products allow.

    python benchmarks/forward.py [--backbone m2crl|tiny] [--device cpu] [--dtypes float32,bfloat16] [--clips 1,4] [--compile]

m2crl gets random weights of the real size (ViT-B/16, 8 frames), written to a temporary file and loaded as any other file.
The limit is the best rate that plain matrix products of the network's own shapes reach in the same run; the ratio is the
network's arithmetic (46.2 GFLOP a frame with the folded time layer) over that. On a CPU both are counted per second of
CPU time, because other work on the machine takes turns with this one; on a GPU, per second.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from qle.backbones import BackboneRequest, build_backbone
from qle.backbones.m2crl_files import M2crlConfig, expected_shapes
from qle.runtime import keep_freed_memory, resolve_device

BASE = M2crlConfig(width=768, depth=12, num_heads=12, mlp_width=3072, patch_size=16, grid=14, num_frames=8)
TOKENS_PER_FRAME = 196


def gflop_per_frame(config: M2crlConfig) -> float:
    """Linear layers (4 + 4 + 8 squares a token, twice for multiply and add), attention over space and time, patches."""
    width = config.width
    linear = 2 * 16 * width**2 * TOKENS_PER_FRAME * config.depth
    attention = 4 * width * TOKENS_PER_FRAME * (TOKENS_PER_FRAME + 1 + config.num_frames) * config.depth
    return (linear + attention + 2 * 3 * config.patch_size**2 * width * TOKENS_PER_FRAME) / 1e9


def random_weights(folder: Path) -> Path:
    """A file of the real size with numbers as a trained network might have them."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in expected_shapes(BASE).items():
        numbers = torch.randn(shape, generator=generator) * (0.5 if name.startswith(("pos", "time", "cls")) else 0.03)
        state[f"backbone.{name}"] = 1 + numbers if ".norm" in f".{name}" and name.endswith("weight") else numbers
    path = folder / "weights.safetensors"
    save_file(state, path)
    return path


def best_seconds(call: Callable[[], object], device: torch.device, repeats: int) -> tuple[float, float]:
    """(wall seconds, seconds of device time) of the fastest of several runs: the others were disturbed."""
    walls, costs = [], []
    for _ in range(repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        walls.append(time.perf_counter() - wall)
        costs.append(time.process_time() - cpu if device.type == "cpu" else walls[-1])
    return min(walls[1:]), min(costs[1:])


def matmul_limit(dtype: torch.dtype, num_tokens: int, device: torch.device, repeats: int) -> float:
    """GFLOP a second of device time of the network's own linear layers, each alone, weighted by their arithmetic."""
    total_flop, total_s = 0.0, 0.0
    for inner, outer, count in ((768, 2304, 2), (768, 768, 2), (768, 3072, 1), (3072, 768, 1)):
        tokens = torch.randn(num_tokens, inner, dtype=dtype, device=device)
        weight = torch.randn(outer, inner, dtype=dtype, device=device)
        bias = torch.randn(outer, dtype=dtype, device=device)
        _, seconds = best_seconds(partial(F.linear, tokens, weight, bias), device, 5 * repeats)
        total_flop += count * 2 * num_tokens * inner * outer
        total_s += count * seconds
    return total_flop / total_s / 1e9


def measure(request: BackboneRequest, num_clips: int, repeats: int) -> dict[str, object]:
    """One line of the result."""
    backbone = build_backbone(request)
    height, width = backbone.preprocess.output_shape
    shape = (num_clips, backbone.context.length, height, width, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    started = time.perf_counter()
    backbone.encode(frames)
    first_s = time.perf_counter() - started
    wall_s, device_s = best_seconds(lambda: backbone.encode(frames), backbone.device, repeats)
    num_frames = num_clips * backbone.context.length
    line: dict[str, object] = {
        "backbone": request.name, "dtype": request.compute_dtype, "compile": request.compile, "clips": num_clips,
        "frames_per_s": round(num_frames / wall_s, 2), "device_s_per_frame": round(device_s / num_frames, 5),
        "first_pass_s": round(first_s, 1),
    }  # fmt: skip
    if request.name == "m2crl":
        limit = matmul_limit(backbone.compute_dtype, num_frames * 197, backbone.device, repeats)
        rate = num_frames * gflop_per_frame(BASE) / device_s
        line |= {"gflop_per_s": round(rate), "matmul_gflop_per_s": round(limit), "ratio": round(rate / limit, 3)}
    return line


def agreement(requests: list[BackboneRequest]) -> dict[str, float]:
    """Smallest and mean cosine between the tokens of two number formats."""
    tokens = []
    for request in requests:
        backbone = build_backbone(request)
        height, width = backbone.preprocess.output_shape
        frames = torch.randint(0, 256, (1, backbone.context.length, height, width, 3), dtype=torch.uint8,
                               generator=torch.Generator().manual_seed(1))  # fmt: skip
        tokens.append(backbone.encode(frames)["patch"].flatten(0, -2))
    cosine = torch.cosine_similarity(tokens[0], tokens[1], dim=-1)
    return {"cosine_min": round(cosine.min().item(), 6), "cosine_mean": round(cosine.mean().item(), 6)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="m2crl", choices=["m2crl", "tiny"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--clips", default="1,4")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    keep_freed_memory()  # as extraction does
    device = str(resolve_device(options.device))
    dtypes = options.dtypes.split(",")
    with tempfile.TemporaryDirectory() as folder:
        weights = random_weights(Path(folder)) if options.backbone == "m2crl" else None
        requests = [
            BackboneRequest(
                name=options.backbone, weights=weights, device=device, compute_dtype=dtype, compile=options.compile
            )
            for dtype in dtypes
        ]
        print(json.dumps({"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}))
        for request in requests:
            for num_clips in options.clips.split(","):
                print(json.dumps(measure(request, int(num_clips), options.repeats)), flush=True)
        if len(requests) == 2:
            print(json.dumps({"agreement": dtypes, **agreement(requests)}))


if __name__ == "__main__":
    main()
