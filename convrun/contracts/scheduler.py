"""Schedulers: the learning rate of every optimizer step after the warm-up, which convrun does for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from convrun.contracts.kind import Kind
from convrun.errors import KeyProblem
from convrun.keys import NonNegativeFloat, NonNegativeInt

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class Horizon:
    """What a schedule spans.

    Attributes:
        total_steps: optimizer steps of the whole run, its warm-up included.
        steps_per_epoch: optimizer steps of one epoch, floor(images / batch_size).
        peak_lr: the learning rate at the end of the warm-up, after any scaling with the batch.
        warmup_steps: optimizer steps of the warm-up; the schedule is called for this step and those after it.
    """

    total_steps: int
    steps_per_epoch: int
    peak_lr: float
    warmup_steps: int = 0

    def steps_in(self, epochs: float) -> int:
        """Optimizer steps of a number of epochs, rounded to whole steps."""
        return round(min(epochs * self.steps_per_epoch, 2.0**53))

    def check_min_lr(self, min_lr: float) -> None:
        """Raises KeyProblem if a schedule that falls towards `min_lr` would rise."""
        if min_lr > self.peak_lr:
            message = f"{min_lr:g} is above the peak of {self.peak_lr:g}, so the schedule would rise"
            raise KeyProblem("min_lr", message, "lower it or raise optimizer.lr")


MinLr = Annotated[NonNegativeFloat, "learning rate the schedule falls towards; the step after the last would reach it"]


@dataclass(frozen=True)
class SchedulerSettings:
    """Keys that every scheduler section takes besides the scheduler's own.

    warmup_epochs: length of the linear warm-up in epochs, rounded to whole steps (or use warmup_steps)
    warmup_steps: length of the linear warm-up in optimizer steps (or use warmup_epochs)
    warmup_start_lr: learning rate of the first warm-up step
    """

    warmup_epochs: NonNegativeFloat | None = None
    warmup_steps: NonNegativeInt | None = None
    warmup_start_lr: NonNegativeFloat = 0.0


SCHEDULER = Kind(
    name="scheduler",
    module="convrun.components.schedulers",
    section="scheduler",
    receives={"horizon": Horizon},
    returns="function(step: int, from 0) -> learning rate of that optimizer step; plain arithmetic, no torch; it is "
    "called from step warmup_steps on, since convrun does the warm-up",
    settings=SchedulerSettings,
)
