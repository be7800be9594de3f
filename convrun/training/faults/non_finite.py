"""Steps whose numbers are none: what counts as one, and what is known of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from convrun.training.window import StepFigures

# fairseq stops there too (`min_loss_scale` of its dynamic loss scaler). From torch's first scale of 65,536 it takes 30
# overflows in a row; gradients that overflow at 1e-4 of their size are not too large for fp16, they are no numbers.
LEAST_LOSS_SCALE = 1e-4


@dataclasses.dataclass(frozen=True)
class Fault:
    """A step with a number that is none.

    Attributes:
        what: the fault, in words.
        figures: of the step.
        before: the figures of the last steps before it.
        groups: label and lr_scale of each parameter group.
        scaler: the state of fp16's loss scaler when the fault was noticed; empty in other arithmetic.
        is_skipped: whether the step was left out instead of ending the run.
    """

    what: str
    figures: StepFigures
    before: tuple[StepFigures, ...]
    groups: tuple[dict[str, Any], ...]
    scaler: dict[str, Any]
    is_skipped: bool

    @property
    def step(self) -> int:
        """The number of the step, from 1."""
        return self.figures.step


def fault_in(figures: StepFigures, is_loss_scaled: bool, groups: Sequence[dict[str, Any]]) -> str:
    """What is wrong with a step's numbers, in words; empty if nothing is.

    In fp16 a gradient that overflows under a finite loss is the loss scaler's business: it skips the step and halves
    the scale. A scale that has collapsed is a fault.
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
