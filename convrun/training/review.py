"""A look at the numbers that a trainer has left on the device: whether they are numbers still."""

from __future__ import annotations

from itertools import compress
from operator import not_
from typing import TYPE_CHECKING

import torch

from convrun.distributed.sharding import own_part
from convrun.errors import Diverged
from convrun.training.faults.non_finite import Fault, fault_in
from convrun.training.window import StepFigures

if TYPE_CHECKING:
    from convrun.training.trainer import Trainer


class Review:
    """Of a trainer's steps and weights; each method waits for the device."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def steps(self) -> bool:
        """Reads the figures of the steps since the last review; False if one of them is left out.

        Raises:
            Diverged: a number among them is none, and the plan skips no such step, or no more of them.
        """
        trainer, is_sound = self._trainer, True
        for figures in trainer.window.read():
            if what := fault_in(figures, trainer.precision.is_loss_scaled, trainer.optimizer.param_groups):
                self._skip_or_stop(what, figures)
                is_sound = False
            else:
                trainer.window.count(figures)
        return is_sound

    def weights(self) -> None:
        """Raises Diverged if a weight is no number any more; the figures of the step that broke it were fine still."""
        self.steps()
        trainer = self._trainer
        weights = {name: tensor for name, tensor in trainer.model.state_dict().items() if tensor.is_floating_point()}
        here = torch.stack([own_part(tensor).isfinite().all() for tensor in weights.values()])
        are_finite = trainer.replicas.true_for_all(here).tolist()
        if all(are_finite):
            return
        what = f"the weights {next(compress(weights, map(not_, are_finite)))} are not finite"
        if trainer.window.remembered:
            self._note(what, trainer.window.remembered[-1], is_skipped=False)
        raise Diverged(f"diverged by step {trainer.state.step}: {what}")

    def _skip_or_stop(self, what: str, figures: StepFigures) -> None:
        trainer, plan, state = self._trainer, self._trainer.plan, self._trainer.state
        skips = plan.training.nonfinite == "skip"
        is_skipped = skips and state.nonfinite_steps < plan.training.nonfinite_limit
        self._note(what, figures, is_skipped)
        if not is_skipped:
            limit = plan.training.nonfinite_limit
            limit_text = f", and training.nonfinite_limit={limit} steps were skipped before" if skips else ""
            raise Diverged(f"diverged in step {figures.step}: {what}{limit_text}")
        state.nonfinite_steps += 1
        trainer.window.leave_out(figures)

    def _note(self, what: str, figures: StepFigures, is_skipped: bool) -> None:
        trainer = self._trainer
        groups = tuple({"label": g["label"], "lr_scale": g["lr_scale"]} for g in trainer.optimizer.param_groups)
        before = tuple(other for other in trainer.window.remembered if other.step < figures.step)
        scaler = trainer.precision.scaler.state_dict()
        trainer.observer.note_fault(Fault(what, figures, before, groups, scaler, is_skipped))
