"""The same model in every process; the gradients of all are summed once an update."""

from __future__ import annotations

import contextlib
import gc
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
        self._model, self._is_compiled = model, is_compiled
        self._sums = GradientSums()
        self._shared = self._share(is_sent=True) if group.size > 1 else None
        self.forward: Any = self._compiled()

    def renew(self) -> None:
        """Begins anew, without gradients, after an update that failed in one process or another; nothing is sent."""
        if self._shared is not None:
            self._shared._remove_autograd_hooks()  # type: ignore[no-untyped-call]
            # Memory is short, and each holds as much as all gradients: the old one goes before the new one comes.
            self._shared = self.forward = None
            gc.collect()  # torch.compile ties it into reference cycles
            self._sums = GradientSums()
            self._shared = self._share(is_sent=False)
            self.forward = self._compiled()

    def _share(self, is_sent: bool) -> DistributedDataParallel:
        """Made anew. Only if it is to be sent, rank 0's model goes to all; between updates it is the same in all."""
        shared = DistributedDataParallel(self._model, gradient_as_bucket_view=True, init_sync=is_sent)
        # Else the first pass would begin with sending buffers, even a try that sums nothing and may fail before it.
        shared.require_forward_param_sync = False
        shared.register_comm_hook(self._sums, sum_up)
        return shared

    def _compiled(self) -> Any:
        forward = self._model if self._shared is None else self._shared
        return torch.compile(forward) if self._is_compiled else forward

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
