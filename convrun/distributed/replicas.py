"""The same model in every process; the gradients of all are summed once an update."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from convrun.distributed.gradient_sums import GradientSums, sum_up
from convrun.distributed.group import Group


class Replicas:
    """A model as one of all processes trains it.

    torch's DistributedDataParallel sends gradients off in portions while the last backward pass computes the others.
    It divides their sum by the number of processes; here the loss is the share of the whole batch already, so a hook
    leaves the sum as it is.

    Args:
        model: on its device; afterwards it has rank 0's weights.
        group: all processes.
        is_compiled: whether torch.compile compiles it.

    Attributes:
        forward: float images -> logits.
        is_whole: whether a process alone could save the state.
    """

    is_whole = True

    def __init__(self, model: nn.Module, group: Group, is_compiled: bool = False) -> None:
        self._model, self._group, self._is_compiled = model, group, is_compiled
        self._shared: DistributedDataParallel | None = None
        self.renew()

    def renew(self) -> None:
        """Begins anew, without gradients, after an update that failed in one process or another; collective."""
        if self._shared is not None:
            self._shared._remove_autograd_hooks()  # type: ignore[no-untyped-call]
        self._sums = GradientSums()
        if self._group.size > 1:
            self._shared = DistributedDataParallel(self._model, gradient_as_bucket_view=True)
            self._shared.register_comm_hook(self._sums, sum_up)
        forward: nn.Module = self._shared if self._shared is not None else self._model
        self.forward: Any = torch.compile(forward) if self._is_compiled else forward

    def begin_update(self) -> None:
        """From here on the other processes count on this one's gradients."""
        self._sums.begin()

    def make_up(self) -> bool:
        """After a pass that failed here: the others get zeros for what they still wait for, sums that none must apply.

        False: what they wait for is not known. So it is in the first two updates, between which torch lays out anew
        what it sends, and with a model that has buffers, which torch sends too.
        """
        has_buffers = next(self._model.buffers(), None) is not None
        return not self._sums.are_owed or (not has_buffers and self._sums.make_up())

    def summing(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """The context of a micro-batch's forward and backward pass; only in an update's last one anything is sent."""
        if self._shared is None or is_last:
            return contextlib.nullcontext()
        return self._shared.no_sync()

    # What follows is work only where each process holds a share (convrun.distributed.sharding).

    def norms_of_all(self, norms: Tensor) -> Tensor:
        """The norms of tensors, given those of what this process holds of them."""
        return norms

    def true_for_all(self, flags: Tensor) -> Tensor:
        """Which flags are set in every process; the weights are the same in all."""
        return flags

    def whole(self, tree: Any) -> Any:
        """The tensors of a tree, whole; not copies."""
        return tree

    def shares(self, saved: Mapping[Any, Any], own: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """What this process holds of whole tensors: all."""
        return saved
