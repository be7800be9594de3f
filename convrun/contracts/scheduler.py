"""Schedules: what they span, and the warm-up that all of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from convrun.contracts.kind import Kind
from convrun.errors import KeyProblem

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class Horizon:
    """What a schedule spans.

    Attributes:
        total_steps: optimizer steps of the whole run.
        steps_per_epoch: optimizer steps of one epoch, floor(images / batch_size).
        peak_lr: the learning rate at the end of the warm-up, after any scaling with the batch.
    """

    total_steps: int
    steps_per_epoch: int
    peak_lr: float


def warmup_steps_of(horizon: Horizon, warmup_epochs: float | None, warmup_steps: int | None) -> int:
    """How many steps the warm-up lasts, whichever unit it was given in.

    Raises:
        KeyProblem: both units are given, or the warm-up leaves no step for the schedule itself.
    """
    if warmup_epochs is not None and warmup_steps is not None:
        raise KeyProblem("warmup_steps", "the warm-up is given twice, in epochs and in steps", "leave one out")
    key, steps = "warmup_steps", warmup_steps or 0
    if warmup_epochs is not None:
        key, steps = "warmup_epochs", steps_in(warmup_epochs, horizon)
    if steps and steps >= horizon.total_steps:
        message = f"a warm-up of {steps} steps does not fit a run of {horizon.total_steps}"
        raise KeyProblem(key, message, "shorten the warm-up or train longer")
    return steps


def steps_in(epochs: float, horizon: Horizon) -> int:
    """Whole optimizer steps of so many epochs."""
    return round(min(epochs * horizon.steps_per_epoch, 2.0**53))


SCHEDULER = Kind(
    "scheduler",
    "convrun.components.schedulers",
    "scheduler",
    {"horizon": "convrun.contracts.scheduler.Horizon(total_steps, steps_per_epoch, peak_lr)"},
    "function(step: int, from 0) -> learning rate of that optimizer step; plain arithmetic, no torch",
)
