"""`qle train-heads`: parses, builds a request, calls one function, shows the result."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qle.cli import console
from qle.cli.progress import TrainProgress
from qle.runtime import cache_folder

if TYPE_CHECKING:
    from qle.train.summary import TrainPlan, TrainSummary

TRAIN_HELP = """Train a head on the tokens of a cache, and the text encoder along with it where it can be trained.

No video is decoded and no backbone runs. Run the same command again after a kill: it goes on from the last checkpoint to the
same numbers. The best weights on the validation videos are kept, and thresholds are fitted there. Several GPUs or machines:
put accelerate launch before it (-m qle train-heads ...).

Settings come from the code, then --preset, then --text-encoder and --lora, then --set, e.g. head.dim=128, data.rate_fps=1,
data.window_rows=64, train.lr=1e-3, train.steps=2000, train.accumulation=4, text.lora.r=4. --dry-run prints them all.

Heads that answer with spans (moment_detr, qd_detr, cg_detr, mesm) and the retrieval head tmass read one vector a clip or
frame: --stream names spaces of the cache, joined in this order, +tef puts the clip's begin and end behind (else: the last).

[bold]Examples[/bold]

  qle train-heads --cache cache --annotations train.jsonl --val val.jsonl --out runs/first
  qle train-heads --cache cache --annotations train.jsonl --val val.jsonl --preset qle/cholec80 --text-encoder minilm --out c80
  qle train-heads --cache qvh --stream slowfast --stream clip+tef --annotations train.jsonl --val val.jsonl \\
      --preset qd_detr/qvhighlights --text-encoder words.safetensors --seeds 5 --out runs/qd
  qle train-heads --cache msrvtt --annotations train.jsonl --val val.jsonl --preset tmass/msrvtt \\
      --text-encoder openai/clip-vit-base-patch32 --out runs/tmass
  accelerate launch --num_processes 2 -m qle train-heads --cache cache --annotations train.jsonl --val val.jsonl --out runs/two
"""


def train_heads(
    annotations: Annotated[Path, typer.Option(help="Annotations to train on (JSONL, see qle prepare).")],
    val: Annotated[Path, typer.Option(help="Annotations of other videos: they choose the best step and the thresholds.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; made if missing.")],
    cache: Annotated[Path | None, typer.Option(help="Folder of the cache. Default: $QLE_CACHE.", show_default=False)] = None,
    space: Annotated[str | None, typer.Option(help="The space, by any beginning of its name; the only one if not given.")] = None,
    stream: Annotated[list[str] | None, typer.Option(help="Moments, retrieval: SPACE[:STREAM][+tef]; repeatable.")] = None,
    head: Annotated[str | None, typer.Option(help="Which head to train.  \\[default: that of the preset, or qle]")] = None,
    preset: Annotated[str | None, typer.Option(help="Settings by name (qle/cholec80) or a path to a .toml.")] = None,
    text_encoder: Annotated[str | None, typer.Option(help="tiny (default), minilm, id, folder, .txt, .safetensors.")] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Train low-rank adapters of the text encoder.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. train.lr=1e-3; may be repeated.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Train so many times; mean and deviation in OUT/summary.json.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Seeds at once.  \\[default: one a GPU, or as cores allow]")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps; accelerate launch deals out GPUs itself.")] = "auto",
    track: Annotated[str, typer.Option(help="auto (TensorBoard where it is installed), tensorboard or none.")] = "auto",
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Leave out annotations without a cached video.")] = False,
    allow_one_sided: Annotated[bool, typer.Option("--allow-one-sided", help="Train without a positive, or negative.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and all settings; write nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:  # fmt: skip
    from qle.text import check_text_encoder

    settings = _settings(preset, text_encoder, lora, set_ or ())
    if isinstance(name := settings.get("text", {}).get("name"), str):
        check_text_encoder(name)
    from qle.heads import task_of
    from qle.runtime import is_main_process, prepare_cpu
    from qle.train.request import TrainRequest
    from qle.train.run import plan
    from qle.train.run import train_heads as run

    request = TrainRequest(
        cache=cache_folder(cache), space=space, streams=tuple(stream or ()), annotations=annotations, val=val, out=out,
        head=head or _head_of(settings), settings=settings, num_seeds=seeds, num_jobs=jobs, device=device, track=track,
        allow_missing=allow_missing, allow_one_sided=allow_one_sided,
    )  # fmt: skip
    if dry_run:
        planned = plan(request)
        console.print_json(asdict(planned)) if json else _show_plan(planned)
        return
    prepare_cpu(console.note)
    with TrainProgress(is_quiet=quiet or not is_main_process()) as progress:
        summary = run(request, progress.update, progress.note)
    if is_main_process():
        console.print_json(summary.to_json()) if json else _show_summary(summary, task_of(request.head).use)


def _settings(
    preset: str | None, text_encoder: str | None, lora: bool, assignments: Sequence[str]
) -> Mapping[str, Any]:
    """Preset, then flags, then assignments."""
    from qle.config import load_preset, override

    settings: dict[str, Any] = load_preset(preset) if preset else {}
    text = dict(settings.get("text", {}))
    if text_encoder is not None and text_encoder != text.get("name", "tiny"):
        text = {"name": text_encoder}  # the preset's adapters and lengths are another encoder's
    if lora:
        text.setdefault("lora", {})
    return override({**settings, **({"text": text} if text else {})}, assignments)


def _head_of(settings: Mapping[str, Any]) -> str:
    """A preset says which head it is for."""
    head = settings.get("head")
    named = head.get("name") if isinstance(head, Mapping) else None
    return named if isinstance(named, str) else "qle"


def _leaves(settings: Mapping[str, Any], above: str = "") -> list[tuple[str, object]]:
    """Every setting under the name that --set takes."""
    rows: list[tuple[str, object]] = []
    for name, value in settings.items():
        rows += _leaves(value, f"{above}{name}.") if isinstance(value, Mapping) else [(f"{above}{name}", value)]
    return rows


def _show_plan(plan: "TrainPlan") -> None:
    facts: dict[str, object] = {
        "space": plan.space,
        "training": plan.train,
        "validation": plan.val,
        "steps": f"{plan.steps:,} ({plan.steps_per_epoch:,} an epoch, {plan.batches_per_epoch:,} batches)",
        "tokens lie in": plan.placement,
        "device": f"{plan.device}, {plan.precision}, {plan.num_processes} process{'es' if plan.num_processes > 1 else ''}",
    }
    if plan.num_jobs > 1:
        facts["seeds at once"] = plan.num_jobs
    console.facts(facts)
    _show_parameters(plan.parameters)
    console.table(["setting", "value"], _leaves(plan.settings))
    for note in plan.notes:
        console.note(note)


def _show_summary(summary: "TrainSummary", use: str) -> None:
    for run in summary.runs:
        if run.state == "finished before":
            console.print_text(f"{run.folder}: finished before with these settings, nothing to do")
        else:
            console.print_text(
                f"{run.folder}: trained in {console.format_duration(run.seconds)}, tokens in {run.placement}"
            )
    if summary.runs[0].parameters:
        _show_parameters(summary.runs[0].parameters)
    if summary.spread:
        # The head's own numbers; floors and the rest stand in summary.json.
        own = {
            name.removeprefix("validation.metrics.").removesuffix(".value"): pair
            for name, pair in summary.spread.items()
            if name.endswith(".value")
        }
        rows = [(name, f"{mean:.4f}", f"{deviation:.4f}") for name, (mean, deviation) in own.items()]
        console.table(["validation", "#mean", "#deviation"], rows)
        return
    from qle.train.progress import score_label

    selection = summary.runs[0].metrics["selection"]
    score = next(name for name in selection if name.startswith("val_"))
    console.facts(
        {
            "kept": f"step {selection['step']:,} of {selection['steps']:,}, "
            f"validation {score_label(score)} " + ("none" if selection[score] is None else f"{selection[score]:.4f}"),
            "use it": use.format(run=summary.runs[0].folder),
        }
    )


def _show_parameters(parameters: Mapping[str, tuple[int, int]]) -> None:
    rows = [(part, f"{trainable:,}", f"{frozen:,}") for part, (trainable, frozen) in parameters.items()]
    console.table(["part", "#trained numbers", "#frozen"], rows)
