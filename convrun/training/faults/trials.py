"""Trials of what fits into the device's memory: black images, passes of which nothing is applied."""

from __future__ import annotations

import torch
from torch import nn

from convrun.data.pipeline import MicroBatch
from convrun.errors import ModelError
from convrun.plan import Plan
from convrun.text.wording import listed
from convrun.training.step import Step


class Trials:
    """Each leaves weights, gradients and draws as they were, also where it fails.

    Args:
        plan: of the run.
        step: computes, and undoes.
    """

    def __init__(self, plan: Plan, step: Step) -> None:
        self.plan, self.step = plan, step

    def passes(self, images: int) -> None:
        """Forward and backward with gradients, and memory as large as the optimizer's, of a micro-batch of so many."""
        optimizer, micro_batch = self.step.state.optimizer, self._black_images(images)
        slots = 0 if optimizer.state else int(self.plan.optimizer.component.meta.get("slots") or 0)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        moments = [torch.empty_like(p) for p in parameters for _ in range(slots)]
        self.step.buffers.keep()
        try:
            # Twice: the second finds gradients there, as all micro-batches of a step but the first do.
            for _ in range(2):
                with self.step.strategy.summing(is_last=False):
                    self.step.accumulate(micro_batch)
        finally:
            self.step.undo()
            del moments

    def whole_step(self) -> None:
        """A step's last passes, whose gradients are summed over the ranks; collective.

        Raises:
            ModelError: the model has weights that get no gradient.
        """
        try:
            self.step.gradient([self._black_images(self.plan.micro_batch)])
            _check_gradients(self.step.state.model)
        finally:
            self.step.undo()

    def _black_images(self, images: int) -> MicroBatch:
        """This rank's last micro-batch of a step; memory does not depend on what images show."""
        plan, shape = self.plan, (images, 3, self.plan.input_size, self.plan.input_size)
        number = (plan.accumulation - 1) * plan.processes + self.step.strategy.group.rank
        blank = torch.zeros(shape, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
        return MicroBatch(self.step.state.progress.step, number, blank, torch.zeros(images, dtype=torch.int64))


def _check_gradients(model: nn.Module) -> None:
    """Raises ModelError if a weight that is to be trained has no gradient: its sum would be waited for, for ever."""
    without = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    if without:
        raise ModelError(
            f"{len(without)} weights of {type(model).__name__} got no gradient ({listed(without)}), and several "
            "processes sum those of all; leave them out of the model, freeze them (requires_grad_(False)), or train "
            "with distributed.strategy=fsdp or in one process"
        )
