"""The same model in every process; the gradients of all are summed once an update."""

# Not `from __future__ import annotations`: torch looks at the hook's annotations, and wants no strings.
import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

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
        self._shared: DistributedDataParallel | None = None
        if group.size > 1:
            self._shared = DistributedDataParallel(model, gradient_as_bucket_view=True)
            self._shared.register_comm_hook(None, _summed)
        forward: nn.Module = self._shared if self._shared is not None else model
        self.forward: Any = torch.compile(forward) if is_compiled else forward

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


def _summed(_state: None, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    work = distributed.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    future: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return future
