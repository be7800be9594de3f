"""Warm-up, stable, decay: the decay may start from any point of the plateau, so one long run serves many lengths.

Copy this file beside a recipe and list it there:

    plugins: [wsd.py]
    scheduler: {name: wsd, warmup_epochs: 5, decay_epochs: 20}
"""

from __future__ import annotations

import math
from typing import Literal

from convrun.contracts.scheduler import Horizon, MinLr, Schedule
from convrun.errors import KeyProblem
from convrun.keys import PositiveFloat, PositiveInt
from convrun.registry import register


@register("scheduler", "wsd")
def wsd(
    horizon: Horizon,
    *,
    decay_epochs: PositiveFloat | None = None,
    decay_steps: PositiveInt | None = None,
    shape: Literal["sqrt", "linear"] = "sqrt",
    min_lr: MinLr = 0.0,
) -> Schedule:
    """Warm-up, the peak, then a decay at the end (MiniCPM, arXiv:2404.06395; the decay's shapes: arXiv:2405.18392).

    decay_epochs: length of the decay in epochs, rounded to whole steps (this or decay_steps)
    decay_steps: length of the decay in optimizer steps (this or decay_epochs)
    shape: how the decay falls with its progress t from 0 to 1; sqrt: as 1 - sqrt(t), linear: as 1 - t
    """
    # convrun does the warm-up, and calls the schedule from step horizon.warmup_steps on.
    decay = _decay_steps_of(horizon, decay_epochs, decay_steps)
    horizon.check_min_lr(min_lr)
    peak, start = horizon.peak_lr, horizon.total_steps - decay

    def lr_of(step: int) -> float:
        if step < start:
            return peak
        progress = (step - start) / decay
        return min_lr + (peak - min_lr) * (1 - (math.sqrt(progress) if shape == "sqrt" else progress))

    return lr_of


def _decay_steps_of(horizon: Horizon, epochs: float | None, steps: int | None) -> int:
    if (epochs is None) == (steps is None):
        stated = "neither is" if epochs is None else "both are"
        raise KeyProblem("decay_epochs", f"exactly one of decay_epochs and decay_steps is needed, {stated} set")
    key, decay = "decay_steps", steps or 0
    if epochs is not None:
        key, decay = "decay_epochs", horizon.steps_in(epochs)
    if decay == 0:
        raise KeyProblem(key, "is less than one optimizer step", "make it longer")
    if horizon.warmup_steps + decay > horizon.total_steps:
        both = f"a warm-up of {horizon.warmup_steps} steps and a decay of {decay}"
        raise KeyProblem(
            key, f"{both} do not fit a run of {horizon.total_steps}", "shorten one of them or train longer"
        )
    return decay
