"""The schedules a recipe can name.

As in ConvNeXt's released training code (arXiv:2201.03545), a curve starts at the peak and would reach its minimum one
step after the last.
"""

from __future__ import annotations

import math
from typing import Annotated

from convrun.contracts.scheduler import Horizon, MinLr, Schedule
from convrun.errors import KeyProblem
from convrun.keys import Limits, PositiveFloat, PositiveInt
from convrun.registry import register

Factor = Annotated[float, Limits(gt=0, lt=1)]


@register("scheduler", "cosine")
def cosine(horizon: Horizon, *, min_lr: MinLr = 0.0) -> Schedule:
    """Half a cosine from the peak towards min_lr (arXiv:1608.03983, equation 5, without restarts), set every step."""
    horizon.check_min_lr(min_lr)
    warmup, peak = horizon.warmup_steps, horizon.peak_lr
    length = horizon.total_steps - warmup
    return lambda step: min_lr + 0.5 * (peak - min_lr) * (1 + math.cos(math.pi * (step - warmup) / length))


@register("scheduler", "linear")
def linear(horizon: Horizon, *, min_lr: MinLr = 0.0) -> Schedule:
    """A straight line from the peak towards min_lr (as BERT's, arXiv:1810.04805, appendix A.2), set every step."""
    horizon.check_min_lr(min_lr)
    warmup, peak = horizon.warmup_steps, horizon.peak_lr
    length = horizon.total_steps - warmup
    return lambda step: min_lr + (peak - min_lr) * (1 - (step - warmup) / length)


@register("scheduler", "step")
def step(
    horizon: Horizon,
    *,
    every_epochs: PositiveFloat | None = None,
    every_steps: PositiveInt | None = None,
    factor: Factor = 0.1,
) -> Schedule:
    """The peak, multiplied by a factor at regular intervals (He et al., arXiv:1512.03385, section 3.4).

    every_epochs: epochs between two drops, counted from the start of the run (this or every_steps)
    every_steps: optimizer steps between two drops, counted from the start of the run (this or every_epochs)
    factor: what each drop multiplies the learning rate by
    """
    interval = _interval_of(horizon, every_epochs, every_steps)
    return lambda step: horizon.peak_lr * factor ** (step // interval)


@register("scheduler", "constant")
def constant(horizon: Horizon) -> Schedule:
    """The peak at every step after the warm-up (the baseline that other schedules are compared with)."""
    return lambda step: horizon.peak_lr


def _interval_of(horizon: Horizon, epochs: float | None, steps: int | None) -> int:
    if (epochs is None) == (steps is None):
        stated = "neither is" if epochs is None else "both are"
        raise KeyProblem("every_epochs", f"exactly one of every_epochs and every_steps is needed, {stated} set")
    key, interval, warmup = "every_steps", steps or 0, horizon.warmup_steps
    if epochs is not None:
        key, interval = "every_epochs", horizon.steps_in(epochs)
    if interval < max(warmup, 1):
        message = f"an interval of {interval} steps would end within the warm-up of {warmup}"
        raise KeyProblem(key, message if warmup else "is less than one optimizer step", "make it longer")
    if interval >= horizon.total_steps:
        message = f"no drop would come: the run has {horizon.total_steps} steps, the interval {interval}"
        raise KeyProblem(key, message, "shorten it, or use the scheduler constant")
    return interval
