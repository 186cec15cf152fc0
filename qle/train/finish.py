"""The end of a training: what the task has fitted and measured on the validation videos, and the run written down."""

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from qle.config import config_to_dict
from qle.runs.record import ENVIRONMENT_FILE, METRICS_FILE, RunRecord, save_run, versions
from qle.train.request import Settings
from qle.train.steps.checkpoints import Position
from qle.train.steps.model import TrainedModel
from qle.train.training import Training


def finish(
    folder: Path,
    accelerator: Accelerator,
    model: TrainedModel,
    *,
    settings: Settings,
    training: Training,
    position: Position,
    scored: Any,
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the run; the metrics come back. `scored`: validation under the weights that are kept. `asked`: the identity that
    settings.json holds."""
    kept = training.finish(model, scored, position, folder)
    selection = {training.score_name: position.best_score, "step": position.best_step, "steps": position.step}
    record = RunRecord(
        head=settings.head_name,
        head_config=config_to_dict(
            model.head.config
        ),  # not the settings: it may have learned from the training queries
        text=model.text.spec(),
        text_dim=model.text.dim,
        sentence_dim=model.text.sentence_dim,
        settings=dict(asked),
        selection=selection,
        versions=versions(),
        created=datetime.now(UTC),
        **kept.record,
    )
    metrics = {"selection": selection, "validation": dict(kept.metrics)}
    files = {METRICS_FILE: metrics, ENVIRONMENT_FILE: environment(accelerator)}
    save_run(folder, record, model.head, model.text.train_state(), files, kept.known)
    return metrics


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
