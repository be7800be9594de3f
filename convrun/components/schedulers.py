"""Learning-rate schedules: the rate of every optimizer step, counted from 0, by plain arithmetic.

The conventions are those of ConvNeXt's released training code (arXiv:2201.03545): the warm-up includes both of its
ends, the curve after it starts at the peak again, and its minimum lies one step beyond the last.
"""

from __future__ import annotations

import math
from typing import Annotated

from convrun.contracts.scheduler import Horizon, Schedule, steps_in, warmup_steps_of
from convrun.errors import KeyProblem
from convrun.keys import Limits, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from convrun.registry import register

Factor = Annotated[float, Limits(gt=0, lt=1)]


@register("scheduler", "cosine")
def cosine(
    horizon: Horizon,
    *,
    warmup_epochs: NonNegativeFloat | None = None,
    warmup_steps: NonNegativeInt | None = None,
    warmup_start_lr: NonNegativeFloat = 0.0,
    min_lr: NonNegativeFloat = 0.0,
) -> Schedule:
    """Half a cosine from the peak towards min_lr (arXiv:1608.03983, equation 5, without restarts), set every step.

    warmup_epochs: length of the linear warm-up in epochs, rounded to whole steps (or use warmup_steps)
    warmup_steps: length of the linear warm-up in optimizer steps (or use warmup_epochs)
    warmup_start_lr: learning rate of the first warm-up step
    min_lr: learning rate the curve falls towards; the step after the last would reach it
    """
    warmup = _checked_warmup(horizon, warmup_epochs, warmup_steps, warmup_start_lr)
    _check_min_lr(horizon, min_lr)
    length, peak = horizon.total_steps - warmup, horizon.peak_lr

    def after(step: int) -> float:
        return min_lr + 0.5 * (peak - min_lr) * (1 + math.cos(math.pi * (step - warmup) / length))

    return _warmed_up(horizon, warmup, warmup_start_lr, after)


@register("scheduler", "linear")
def linear(
    horizon: Horizon,
    *,
    warmup_epochs: NonNegativeFloat | None = None,
    warmup_steps: NonNegativeInt | None = None,
    warmup_start_lr: NonNegativeFloat = 0.0,
    min_lr: NonNegativeFloat = 0.0,
) -> Schedule:
    """A straight line from the peak towards min_lr (as BERT's, arXiv:1810.04805, appendix A.2), set every step.

    warmup_epochs: length of the linear warm-up in epochs, rounded to whole steps (or use warmup_steps)
    warmup_steps: length of the linear warm-up in optimizer steps (or use warmup_epochs)
    warmup_start_lr: learning rate of the first warm-up step
    min_lr: learning rate the line falls towards; the step after the last would reach it
    """
    warmup = _checked_warmup(horizon, warmup_epochs, warmup_steps, warmup_start_lr)
    _check_min_lr(horizon, min_lr)
    length, peak = horizon.total_steps - warmup, horizon.peak_lr

    def after(step: int) -> float:
        return min_lr + (peak - min_lr) * (1 - (step - warmup) / length)

    return _warmed_up(horizon, warmup, warmup_start_lr, after)


@register("scheduler", "step")
def step(
    horizon: Horizon,
    *,
    warmup_epochs: NonNegativeFloat | None = None,
    warmup_steps: NonNegativeInt | None = None,
    warmup_start_lr: NonNegativeFloat = 0.0,
    every_epochs: PositiveFloat | None = None,
    every_steps: PositiveInt | None = None,
    factor: Factor = 0.1,
) -> Schedule:
    """The peak, multiplied by a factor at regular intervals (He et al., arXiv:1512.03385, section 3.4).

    warmup_epochs: length of the linear warm-up in epochs, rounded to whole steps (or use warmup_steps)
    warmup_steps: length of the linear warm-up in optimizer steps (or use warmup_epochs)
    warmup_start_lr: learning rate of the first warm-up step
    every_epochs: epochs between two drops, counted from the start of the run (this or every_steps)
    every_steps: optimizer steps between two drops, counted from the start of the run (this or every_epochs)
    factor: what each drop multiplies the learning rate by
    """
    warmup = _checked_warmup(horizon, warmup_epochs, warmup_steps, warmup_start_lr)
    interval = _interval_of(horizon, every_epochs, every_steps, warmup)

    def after(step: int) -> float:
        return horizon.peak_lr * factor ** (step // interval)

    return _warmed_up(horizon, warmup, warmup_start_lr, after)


@register("scheduler", "constant")
def constant(
    horizon: Horizon,
    *,
    warmup_epochs: NonNegativeFloat | None = None,
    warmup_steps: NonNegativeInt | None = None,
    warmup_start_lr: NonNegativeFloat = 0.0,
) -> Schedule:
    """The peak at every step after the warm-up (the baseline that other schedules are compared with).

    warmup_epochs: length of the linear warm-up in epochs, rounded to whole steps (or use warmup_steps)
    warmup_steps: length of the linear warm-up in optimizer steps (or use warmup_epochs)
    warmup_start_lr: learning rate of the first warm-up step
    """
    warmup = _checked_warmup(horizon, warmup_epochs, warmup_steps, warmup_start_lr)
    return _warmed_up(horizon, warmup, warmup_start_lr, lambda step: horizon.peak_lr)


def _warmed_up(horizon: Horizon, warmup: int, start_lr: float, after: Schedule) -> Schedule:
    """`after`, preceded by a straight line that holds both ends; a warm-up of one step is its start alone."""
    rise = (horizon.peak_lr - start_lr) / max(warmup - 1, 1)

    def lr_of(step: int) -> float:
        if step >= warmup:
            return after(step)
        # The last warm-up step is the peak itself, not a sum that rounds to about the peak.
        return horizon.peak_lr if 0 < step == warmup - 1 else start_lr + rise * step

    return lr_of


def _checked_warmup(horizon: Horizon, epochs: float | None, steps: int | None, start_lr: float) -> int:
    warmup = warmup_steps_of(horizon, epochs, steps)
    if start_lr and not warmup:
        raise KeyProblem("warmup_start_lr", "has no effect without a warm-up", "set warmup_epochs or leave it out")
    if start_lr > horizon.peak_lr:
        message = f"{start_lr:g} is above the peak of {horizon.peak_lr:g}, so the warm-up would fall"
        raise KeyProblem("warmup_start_lr", message, "lower it or raise optimizer.lr")
    return warmup


def _check_min_lr(horizon: Horizon, min_lr: float) -> None:
    if min_lr > horizon.peak_lr:
        message = f"{min_lr:g} is above the peak of {horizon.peak_lr:g}, so the schedule would rise"
        raise KeyProblem("min_lr", message, "lower it or raise optimizer.lr")


def _interval_of(horizon: Horizon, epochs: float | None, steps: int | None, warmup: int) -> int:
    if (epochs is None) == (steps is None):
        stated = "neither is" if epochs is None else "both are"
        raise KeyProblem("every_epochs", f"exactly one of every_epochs and every_steps is needed, {stated} set")
    key, interval = "every_steps", steps or 0
    if epochs is not None:
        key, interval = "every_epochs", steps_in(epochs, horizon)
    if interval < max(warmup, 1):
        message = f"an interval of {interval} steps would end within the warm-up of {warmup}"
        raise KeyProblem(key, message if warmup else "is less than one optimizer step", "make it longer")
    if interval >= horizon.total_steps:
        message = f"no drop would come: the run has {horizon.total_steps} steps, the interval {interval}"
        raise KeyProblem(key, message, "shorten it, or use the scheduler constant")
    return interval
