"""The end of a training: constants fitted and metrics measured on the validation videos, and the run written down."""

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from qle.config import config_to_dict
from qle.data.lookup import match_videos
from qle.data.rows import choose_rows
from qle.eval.evaluate import evaluate
from qle.eval.fitting import fit_localization
from qle.eval.floors import Priors, priors_of
from qle.eval.scored import ScoredQuery
from qle.runs import ENVIRONMENT_FILE, METRICS_FILE, RunRecord, SpaceUse, save_run
from qle.train.checkpoints import Position
from qle.train.model import TrainedModel
from qle.train.request import Settings
from qle.train.setup import Material, token_streams

PACKAGES = ("qle", "torch", "accelerate", "transformers", "peft", "numpy", "safetensors", "zarr")


def finish(
    folder: Path,
    accelerator: Accelerator,
    model: TrainedModel,
    *,
    settings: Settings,
    material: Material,
    position: Position,
    scored: Sequence[ScoredQuery],
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the run; the metrics come back. `scored`: validation under the weights that are kept. `asked`: the identity that
    settings.json holds."""
    localization = fit_localization(scored)
    priors = _priors(material, settings)
    report = evaluate(scored, localization, priors=priors)
    selection = {"val_auroc": position.best_score, "step": position.best_step, "steps": position.step}
    record = RunRecord(
        head=settings.head_name,
        head_config=config_to_dict(settings.head),
        text=model.text.spec(),
        text_dim=model.text.dim,
        sentence_dim=model.text.sentence_dim,
        space=SpaceUse(
            name=material.space.record.name,
            hash=material.space.record.hash,
            hashed=material.space.record.hashed,
            streams=token_streams(material.space),
            rate_fps=settings.data.rate_fps,
        ),
        localization=localization,
        priors=priors.to_json(),
        settings=dict(asked),
        selection=selection,
        versions=versions(),
        created=datetime.now(UTC),
    )
    metrics = {"selection": selection, "validation": report.to_json()}
    files = {METRICS_FILE: metrics, ENVIRONMENT_FILE: environment(accelerator)}
    save_run(folder, record, model.head, model.text.train_state(), files)
    return metrics


def versions() -> dict[str, str]:
    """Of the packages that make the numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # used from a checkout without an installation
            continue
    return found


def environment(accelerator: Accelerator) -> dict[str, Any]:
    """Where it was trained."""
    device = accelerator.device
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "num_processes": accelerator.num_processes,
        "num_threads": torch.get_num_threads(),
        "precision": accelerator.mixed_precision,
    }


def _priors(material: Material, settings: Settings) -> Priors:
    """Of the training annotations; how long videos are is known from the cache where they do not say."""
    by_key, _ = match_videos(material.space, (*material.train, *material.val))
    keys = {annotation.video: key for key, annotations in by_key.items() for annotation in annotations}
    durations_s = {
        name: choose_rows(material.space.video(keys[name]), settings.data.rate_fps).duration_s
        for name in {annotation.video for annotation in material.train}
    }
    return priors_of(material.train, durations_s, val=material.val, keys=keys)
