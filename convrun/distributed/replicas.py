"""The same model on every rank; the gradients of all are summed once a step (ddp)."""

# Not `from __future__ import annotations`: torch looks at the hook's annotations, and wants no strings.
import contextlib
import gc
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

from convrun.distributed.group import Group
from convrun.distributed.strategy import Strategy

# After the first step torch fills its buckets in another order, that in which gradients were ready.
STEPS_UNTIL_SETTLED = 2


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
        # Gradients are views of the buckets: no copies, and no second set of gradients in memory.
        wrapped = DistributedDataParallel(self.model, gradient_as_bucket_view=True, init_sync=sends_weights)
        # Else the first pass would begin with sending buffers, even a trial that sums nothing and may fail before it.
        wrapped.require_forward_param_sync = False
        wrapped.register_comm_hook(self._sums, _sum_up)
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

    # After a step that failed on one rank or another ------------------------------------------------------------------

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


class GradientSums:
    """The sums of gradients over the ranks, bucket by bucket as DistributedDataParallel hands them over.

    It remembers which buckets of a step were sent, so that a rank that fails in the midst of it can send the rest.

    Attributes:
        are_owed: the other ranks wait, or will, for gradients of this one.
    """

    def __init__(self) -> None:
        self.are_owed = False
        self._steps = 0
        self._under_way: list[distributed.Work] = []
        self._buckets: list[dict[str, Any]] = []  # size, dtype and device of those sent
        self._buckets_of_all: list[dict[str, Any]] = []  # of the last whole step

    def begin(self) -> None:
        """A step begins: all ranks will sum its gradients."""
        self.are_owed, self._under_way, self._buckets = True, [], []

    def send(self, bucket: Tensor, is_last: bool) -> distributed.Work:
        """Begins to sum the next bucket, in place."""
        self._buckets.append({"size": bucket.shape, "dtype": bucket.dtype, "device": bucket.device})
        work = self._start(bucket)
        if is_last:
            self.are_owed, self._steps, self._buckets_of_all = False, self._steps + 1, self._buckets
        return work

    def make_up(self) -> bool:
        """Sends zeros for the rest of the step, and waits for all of it; False if the rest is not known."""
        if self._steps < STEPS_UNTIL_SETTLED:
            return False
        for bucket in self._buckets_of_all[len(self._buckets) :]:
            self._start(torch.zeros(**bucket))
        for work in self._under_way:
            work.wait()
        self.are_owed = False
        return True

    def _start(self, bucket: Tensor) -> distributed.Work:
        work = distributed.all_reduce(bucket, async_op=True)  # beside the backward pass; nothing waits here
        assert work is not None
        self._under_way.append(work)
        return work


def _sum_up(sums: GradientSums, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """The hook that gets each bucket; the sum stays a sum, which torch's own hook would divide."""
    work = sums.send(bucket.buffer(), bucket.is_last())
    future: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return future
