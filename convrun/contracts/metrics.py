"""The rows of metrics.jsonl: the only place where a column gets its name and its meaning.

A row is a plain dict with the keys below, so what loggers and callbacks are passed, plugins' included, is exactly what
the file holds. Columns marked NotRequired are left out where there is nothing to report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NotRequired, TypedDict

Weights = Literal["model", "ema"]


class TrainRow(TypedDict):
    """The steps since the last such row.

    kind: `train`
    step: optimizer steps done, from 1
    epoch: passes over the training images so far
    loss: mean over the steps of the row that were applied; NaN if none was
    lr: learning rate of the last step, before a parameter group's lr_scale
    grad_norm: norm of the last step's gradient before clipping; only if gradients are clipped
    nonfinite_steps: steps of the row that were skipped because their loss or gradient was non-finite
        (training.nonfinite: skip)
    overflow_steps: steps of the row that fp16's loss scaling skipped because a scaled gradient overflowed
    spike_step: the step of the row's highest loss spike
    spike_loss: its loss
    images_per_second: over all processes, without the time of evaluations, checkpoints and logging
    data_wait: share of the time that training waited for images, 0..1
    checkpoint_wait: share of the time that training waited for checkpoints, 0..1
    """

    kind: Literal["train"]
    step: int
    epoch: float
    loss: float
    lr: float
    grad_norm: NotRequired[float]
    nonfinite_steps: NotRequired[int]
    overflow_steps: NotRequired[int]
    spike_step: NotRequired[int]
    spike_loss: NotRequired[float]
    images_per_second: float
    data_wait: float
    checkpoint_wait: NotRequired[float]


class EvalRow(TypedDict):
    """One evaluation of the model's weights or of their EMA.

    kind: `eval`
    step: optimizer steps done
    epoch: passes over the training images so far
    weights: `model` or `ema`
    top1: top-1 accuracy in percent
    top5: top-5 accuracy in percent
    loss: mean cross-entropy
    images: how many were evaluated
    skipped: images left out because they could not be read (data.bad_images: skip)
    """

    kind: Literal["eval"]
    step: int
    epoch: float
    weights: Weights
    top1: float
    top5: float
    loss: float
    images: int
    skipped: NotRequired[int]


class EventRow(TypedDict):
    """Something that changes how the run goes on.

    kind: `event`
    event: `out_of_memory`
    step: the step it happened in, which is retried
    epoch: passes over the training images so far
    forward_parts: parts in which a micro-batch goes through the model from here on
    """

    kind: Literal["event"]
    event: Literal["out_of_memory"]
    step: int
    epoch: float
    forward_parts: int


Row = TrainRow | EvalRow | EventRow


def train_row(
    *,
    step: int,
    epoch: float,
    loss: float,
    lr: float,
    grad_norm: float | None,
    nonfinite_steps: int,
    overflow_steps: int,
    spike: tuple[int, float] | None,
    images_per_second: float,
    data_wait: float,
) -> TrainRow:
    """A row about training; columns without a value (None, no step skipped) are left out."""
    optional: dict[str, Any] = {
        "grad_norm": grad_norm,
        "nonfinite_steps": nonfinite_steps or None,
        "overflow_steps": overflow_steps or None,
        "spike_step": spike[0] if spike else None,
        "spike_loss": spike[1] if spike else None,
    }
    return {
        "kind": "train",
        "step": step,
        "epoch": epoch,
        "loss": loss,
        "lr": lr,
        **{name: value for name, value in optional.items() if value is not None},  # type: ignore[typeddict-item]
        "images_per_second": round(images_per_second, 2),
        "data_wait": round(data_wait, 4),
    }


def with_checkpoint_wait(row: Row, take_share: Callable[[], float]) -> Row:
    """A train row with the share of the time that training waited for checkpoints; any other row as it is."""
    if row["kind"] == "train":
        return {**row, "checkpoint_wait": take_share()}
    return row


def with_skipped(row: Row, images: int) -> Row:
    """An evaluation's row with the number of images, of all there are, that it lacks; any other row as it is."""
    if row["kind"] == "eval" and row["images"] < images:
        return {**row, "skipped": images - row["images"]}
    return row


def notice(row: Row) -> str:
    """A line for the user about an event or a loss spike; empty for any other row."""
    if row["kind"] == "event":
        return (
            f"step {row['step']} ran out of memory and is retried; from here on each micro-batch goes through the "
            f"model in {row['forward_parts']} parts, which changes neither the batch nor its images"
        )
    if row["kind"] == "train" and "spike_step" in row:
        return f"loss spike: {row['spike_loss']:.4g} in step {row['spike_step']}"
    return ""
