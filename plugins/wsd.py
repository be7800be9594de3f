"""Warm-up, stable, decay: a schedule whose plateau can be left at any time, so that one long run serves many lengths.

Copy this file beside a recipe and list it there:

    plugins: [wsd.py]
    scheduler: {name: wsd, warmup_epochs: 5, decay_epochs: 20}
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from convrun.contracts.scheduler import Horizon, warmup_steps_of
from convrun.errors import KeyProblem
from convrun.keys import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from convrun.registry import register


@register("scheduler", "wsd")
def wsd(
    horizon: Horizon,
    *,
    warmup_epochs: NonNegativeFloat | None = None,
    warmup_steps: NonNegativeInt | None = None,
    decay_epochs: PositiveFloat | None = None,
    decay_steps: PositiveInt | None = None,
    shape: Literal["sqrt", "linear"] = "sqrt",
    min_lr: NonNegativeFloat = 0.0,
) -> Callable[[int], float]:
    """Warm-up, the peak, then a decay at the end (MiniCPM, arXiv:2404.06395; the decay's shapes: arXiv:2405.18392).

    warmup_epochs: length of the linear warm-up in epochs, rounded to whole steps (or use warmup_steps)
    warmup_steps: length of the linear warm-up in optimizer steps (or use warmup_epochs)
    decay_epochs: length of the decay in epochs, rounded to whole steps (this or decay_steps)
    decay_steps: length of the decay in optimizer steps (this or decay_epochs)
    shape: how the decay falls with its progress t from 0 to 1; sqrt: as 1 - sqrt(t), linear: as 1 - t
    min_lr: learning rate the decay falls towards; the step after the last would reach it
    """
    warmup = warmup_steps_of(horizon, warmup_epochs, warmup_steps)
    decay = _decay_steps_of(horizon, decay_epochs, decay_steps, warmup)
    if min_lr > horizon.peak_lr:
        message = f"{min_lr:g} is above the peak of {horizon.peak_lr:g}, so the decay would rise"
        raise KeyProblem("min_lr", message, "lower it or raise optimizer.lr")
    peak, start = horizon.peak_lr, horizon.total_steps - decay

    def lr_of(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        if step < start:
            return peak
        progress = (step - start) / decay
        return min_lr + (peak - min_lr) * (1 - (math.sqrt(progress) if shape == "sqrt" else progress))

    return lr_of


def _decay_steps_of(horizon: Horizon, epochs: float | None, steps: int | None, warmup: int) -> int:
    if (epochs is None) == (steps is None):
        stated = "neither is" if epochs is None else "both are"
        raise KeyProblem("decay_epochs", f"exactly one of decay_epochs and decay_steps is needed, {stated} set")
    key, decay = "decay_steps", steps or 0
    if epochs is not None:
        key, decay = "decay_epochs", round(epochs * horizon.steps_per_epoch)
    if decay == 0:
        raise KeyProblem(key, "is less than one optimizer step", "make it longer")
    if warmup + decay > horizon.total_steps:
        message = f"a warm-up of {warmup} steps and a decay of {decay} do not fit a run of {horizon.total_steps}"
        raise KeyProblem(key, message, "shorten one of them or train longer")
    return decay
