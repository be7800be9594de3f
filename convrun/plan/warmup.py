"""The linear warm-up that convrun does before every schedule.

It follows ConvNeXt's released training code (arXiv:2201.03545): the warm-up includes both ends, so its last step has
the peak learning rate, and the schedule after it starts at the peak again.
"""

from __future__ import annotations

from convrun.contracts.scheduler import Horizon, Schedule, SchedulerSettings
from convrun.errors import KeyProblem


def horizon_of(settings: SchedulerSettings, total_steps: int, steps_per_epoch: int, peak_lr: float) -> Horizon:
    """What a schedule spans, its warm-up in steps, whichever unit it was given in.

    Raises:
        KeyProblem: the warm-up is given twice, leaves no step for the schedule, or would not rise.
    """
    epochs, steps, start_lr = settings.warmup_epochs, settings.warmup_steps or 0, settings.warmup_start_lr
    if epochs is not None and settings.warmup_steps is not None:
        raise KeyProblem("warmup_steps", "the warm-up is given twice, in epochs and in steps", "leave one out")
    if epochs is not None:
        steps = Horizon(total_steps, steps_per_epoch, peak_lr).steps_in(epochs)
    if steps and steps >= total_steps:
        message = f"a warm-up of {steps} steps does not fit a run of {total_steps}"
        key = "warmup_steps" if epochs is None else "warmup_epochs"
        raise KeyProblem(key, message, "shorten the warm-up or train longer")
    if start_lr and not steps:
        raise KeyProblem("warmup_start_lr", "has no effect without a warm-up", "set warmup_epochs or leave it out")
    if start_lr > peak_lr:
        message = f"{start_lr:g} is above the peak of {peak_lr:g}, so the warm-up would fall"
        raise KeyProblem("warmup_start_lr", message, "lower it or raise optimizer.lr")
    return Horizon(total_steps, steps_per_epoch, peak_lr, steps)


def warmed_up(schedule: Schedule, horizon: Horizon, start_lr: float) -> Schedule:
    """A straight line from start_lr to the peak, then the schedule; a warm-up of one step has only start_lr."""
    rise = (horizon.peak_lr - start_lr) / max(horizon.warmup_steps - 1, 1)

    def lr_of(step: int) -> float:
        if step >= horizon.warmup_steps:
            return schedule(step)
        # The last warm-up step is the peak itself, not a sum that rounds to about the peak.
        return horizon.peak_lr if 0 < step == horizon.warmup_steps - 1 else start_lr + rise * step

    return lr_of
