"""debug/step-<n>.json: all that is known of a non-finite step."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from convrun.contracts.data import ImageSet
from convrun.data.order import TrainingOrder
from convrun.errors import RunFolderError
from convrun.plan import Plan
from convrun.run_folder import RunFolder, explained
from convrun.training.recording.contract import NonFiniteStep


def write_dump(folder: RunFolder, step: NonFiniteStep, plan: Plan, images: ImageSet) -> str:
    """Writes it, whole or not at all; returns where it is, in words, or why it is not: that must not hide the step."""
    path = Path("debug") / f"step-{step.step}.json"
    try:
        with explained(f"{folder.path / 'debug'}", "free space on that disk"):
            (folder.path / "debug").mkdir(exist_ok=True)
        folder.write_json(str(path), plain(record(step, plan, images)))
    except RunFolderError as error:
        return f"what is known of the step could not be recorded: {error}"
    return f"what is known of the step is in {folder.path / path}"


def record(step: NonFiniteStep, plan: Plan, images: ImageSet) -> dict[str, Any]:
    """The step's figures, by parameter group, its samples by micro-batch, and the figures of the steps before."""
    figures = step.figures
    groups = [
        {**group, "lr": figures.lr * group["lr_scale"], "grad_norm": norm}
        for group, norm in zip(step.groups, figures.group_norms, strict=True)
    ]
    return {
        "step": figures.step,
        "epoch": (figures.step - 1) // plan.steps_per_epoch,
        "what": step.what,
        "is_skipped": step.is_skipped,
        "loss": figures.loss,
        "lr": figures.lr,
        "grad_norm": figures.grad_norm,
        "loss_scale": figures.loss_scale,
        "scaler": step.scaler,
        "parameter_groups": groups,
        "seed": plan.seed,
        "micro_batches": _micro_batches(figures.step, plan, images),
        "steps_before": [dataclasses.asdict(other) for other in step.before],
    }


def _micro_batches(step: int, plan: Plan, images: ImageSet) -> list[dict[str, Any]]:
    """Which samples the step had: arithmetic on its number, so nothing was kept for it."""
    positions = TrainingOrder(
        seed=plan.seed,
        images=plan.train_images,
        batch_size=plan.training.batch_size,
        micro_batch=plan.micro_batch,
        start_step=step - 1,
        end_step=step,
    )
    return [
        {
            "number": position.number,
            "process": position.number % plan.processes,
            "samples": [{"index": index, "place": images.place(index)} for index in position.indices.tolist()],
        }
        for position in positions
    ]


def plain(value: Any) -> Any:
    """The same with `nan`, `inf` and `-inf` as text: JSON has no such numbers, and null would not tell them apart."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
