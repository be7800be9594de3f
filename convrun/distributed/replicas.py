"""The same model on every rank; the gradients of all are summed once a step (ddp)."""

from __future__ import annotations

import contextlib
import gc

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from convrun.distributed.gradient_sums import GradientSums, sum_up
from convrun.distributed.group import Group
from convrun.distributed.strategy import Strategy


class Replicas(Strategy):
    """A model of which each of several ranks holds all.

    torch's DistributedDataParallel sends gradients off in buckets while the last backward pass computes the others. It
    divides their sum by the number of ranks; here the loss is the share of the whole batch already (see
    `convrun.training.step`), so a hook leaves the sum as it is.

    Args:
        model: on its device; afterwards it has rank 0's weights.
        group: all ranks.
    """

    def __init__(self, model: nn.Module, group: Group) -> None:
        super().__init__(model, group)
        self._sums, self._owes_number = GradientSums(), False
        self.forward = self._wrapped(sends_weights=True)

    def _wrapped(self, sends_weights: bool) -> DistributedDataParallel:
        """The wrapper that sums. Rank 0's weights are sent at the start alone: later all ranks have the same."""
        wrapped = DistributedDataParallel(self.model, gradient_as_bucket_view=True, init_sync=sends_weights)
        # Else the first pass would begin with sending buffers, even a trial that sums nothing and may fail before it.
        wrapped.require_forward_param_sync = False
        wrapped.register_comm_hook(self._sums, sum_up)
        return wrapped

    def begin_step(self) -> None:
        """From here on the other ranks count on this one's gradients."""
        self._sums.begin()
        self._owes_number = True

    def summing(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients are sent in a step's last backward pass alone; before it they add up here."""
        return contextlib.nullcontext() if is_last else self.forward.no_sync()

    def add_up(self, value: Tensor) -> None:
        """Makes a step's number, in place, the sum of all ranks'."""
        self.group.add_up(value)
        self._owes_number = False

    def make_up(self) -> bool:
        """After a pass that failed here: the other ranks get zeros, sums that none must apply.

        What they wait for is not known in the first two steps, between which torch lays out its buckets again, and with
        a model that has buffers, which torch sends too.
        """
        if self._sums.are_owed:
            has_buffers = next(self.model.buffers(), None) is not None
            if has_buffers or not self._sums.make_up():
                return False
        if self._owes_number:
            device = next(self.model.parameters()).device
            self.add_up(torch.zeros((), dtype=torch.float64, device=device))
        return True

    def renew(self) -> None:
        """Makes the wrapper again, without gradients; nothing is sent."""
        self.forward._remove_autograd_hooks()
        # Memory is short, and each holds as much as all gradients: the old one goes before the new one comes.
        self.forward = None
        gc.collect()  # torch.compile ties it into reference cycles
        self._sums, self._owes_number = GradientSums(), False
        self.forward = self._wrapped(sends_weights=False)
