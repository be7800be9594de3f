"""Non-finite numbers: a step whose loss or gradient is NaN or infinite, and weights that are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import compress
from operator import not_
from typing import Any

import torch

from convrun.distributed.strategy import Strategy, own_part
from convrun.errors import Diverged
from convrun.plan import Plan
from convrun.training.figures import Gradient, StepFigures
from convrun.training.recording.contract import NonFiniteStep, Recorder
from convrun.training.state import RunState
from convrun.training.step import Step

# fairseq stops there too (`min_loss_scale` of its dynamic loss scaler). From torch's first scale of 65,536 it takes 30
# overflows in a row; gradients that overflow at 1e-4 of their size are not too large for fp16, they are not finite.
LEAST_LOSS_SCALE = 1e-4


class Health:
    """Looks whether the numbers that the steps have left on the device are finite.

    Args:
        plan: says whether a step that is not finite is skipped, or ends the run.
        state: holds weights and figures.
        step: what is undone where it is skipped.
        strategy: how the ranks hold the model.
        recorder: writes down what is known of a non-finite step.
    """

    def __init__(self, plan: Plan, state: RunState, step: Step, strategy: Strategy, recorder: Recorder) -> None:
        self._plan, self._state, self._step, self._strategy = plan, state, step, strategy
        self._recorder = recorder

    def accepts(self, gradient: Gradient) -> bool:
        """Whether a step may be applied; with `training.nonfinite: skip` this waits for the device, else it does not.

        With `stop` a non-finite step is found when its figures are read: before the next row, evaluation or checkpoint,
        so that none is ever saved. A step that is not accepted is undone.

        Raises:
            Diverged: it is not finite, and no more steps may be skipped.
        """
        if self._plan.training.nonfinite == "stop" or self.check_steps():
            return True
        self._state.precision.skip_step()
        self._step.undo()
        return False

    def check_steps(self) -> bool:
        """Reads the figures of the steps since the last look; False if one of them is skipped. Waits for the device.

        Raises:
            Diverged: one is not finite, and the plan skips no such step, or no more of them.
        """
        state, are_finite = self._state, True
        for figures in state.figures.read():
            if what := non_finite_in(figures, state.precision.is_loss_scaled, state.optimizer.param_groups):
                self._skip_or_stop(what, figures)
                are_finite = False
            else:
                state.figures.count(figures)
        return are_finite

    def check_weights(self) -> None:
        """Raises Diverged if a weight is not finite, though the figures of its step were. Waits for the device."""
        self.check_steps()
        state = self._state
        weights = {name: tensor for name, tensor in state.model.state_dict().items() if tensor.is_floating_point()}
        here = torch.stack([own_part(tensor).isfinite().all() for tensor in weights.values()])
        are_finite = self._strategy.true_for_all(here).tolist()
        if all(are_finite):
            return
        what = f"the weights {next(compress(weights, map(not_, are_finite)))} are not finite"
        if state.figures.remembered:
            self._note(what, state.figures.remembered[-1], is_skipped=False)
        raise Diverged(f"diverged by step {state.progress.step}: {what}")

    def _skip_or_stop(self, what: str, figures: StepFigures) -> None:
        training, progress = self._plan.training, self._state.progress
        skips = training.nonfinite == "skip"
        is_skipped = skips and progress.nonfinite_steps < training.nonfinite_limit
        self._note(what, figures, is_skipped)
        if not is_skipped:
            limit = f", and training.nonfinite_limit={training.nonfinite_limit} steps were skipped before"
            raise Diverged(f"diverged in step {figures.step}: {what}{limit if skips else ''}")
        progress.nonfinite_steps += 1
        self._state.figures.count_skipped(figures)

    def _note(self, what: str, figures: StepFigures, is_skipped: bool) -> None:
        state = self._state
        groups = tuple({"label": g["label"], "lr_scale": g["lr_scale"]} for g in state.optimizer.param_groups)
        before = tuple(other for other in state.figures.remembered if other.step < figures.step)
        scaler = state.precision.scaler.state_dict()
        self._recorder.note_non_finite(NonFiniteStep(what, figures, before, groups, scaler, is_skipped))


def non_finite_in(figures: StepFigures, is_loss_scaled: bool, groups: Sequence[dict[str, Any]]) -> str:
    """What is not finite among a step's numbers, in words; empty if all are.

    In fp16 a gradient that overflows under a finite loss is the loss scaler's business: it skips the step and halves
    the scale. A scale that has collapsed counts as non-finite.
    """
    if not math.isfinite(figures.loss):
        return f"the loss is {figures.loss}"
    if math.isfinite(figures.grad_norm):
        return ""
    broken = [
        group["label"] for group, norm in zip(groups, figures.group_norms, strict=True) if not math.isfinite(norm)
    ]
    where = f" (in {len(broken)} of {len(groups)} parameter groups, the first is {broken[0]!r})" if broken else ""
    if not is_loss_scaled:
        return f"the norm of the gradient is {figures.grad_norm}{where}"
    if figures.loss_scale < LEAST_LOSS_SCALE:
        return f"the gradient overflows even at a loss scale of {figures.loss_scale:.1e}{where}"
    return ""
