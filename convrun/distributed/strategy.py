"""How the ranks hold and train one model together: the contract, with what is true where there is one rank.

`Replicas` (ddp) and `Shards` (fsdp) change what is different with them; the step, the evaluation and the checkpoints
ask none of them what it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from convrun.distributed.group import Group


class Strategy:
    """One rank that holds all of the model; nothing is sent, nothing is waited for.

    Args:
        model: on its device.
        group: all ranks.

    Attributes:
        forward: float images [n, 3, h, w] -> logits.
        can_retry: whether the ranks can retry a step in which one of them ran out of memory.
        is_whole: whether a rank alone could save the state.
    """

    can_retry = True
    is_whole = True

    def __init__(self, model: nn.Module, group: Group) -> None:
        self.model, self.group = model, group
        self.forward: Any = model

    def begin_step(self) -> None:
        """From here on the other ranks count on this one's gradients."""

    def summing(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """The context of a forward and backward pass; gradients are summed over the ranks in a step's last one."""
        return contextlib.nullcontext()

    def add_up(self, value: Tensor) -> None:
        """Makes a step's number, in place, the sum of all ranks'; once a step, after the last backward pass."""

    def make_up(self) -> bool:
        """After a pass that failed here: gives the other ranks zeros for what they still wait for.

        False: what they wait for is not known.
        """
        return True

    def renew(self) -> None:
        """Makes what sums the gradients again, after a step that failed on one rank or another."""

    def take_part(self, size: int) -> None:
        """A forward pass without images of its own, where the other ranks' passes need this one; of this input size."""

    def norms_of_all(self, norms: Tensor) -> Tensor:
        """The norms of whole tensors, given those of what this rank holds of them."""
        return norms

    def true_for_all(self, flags: Tensor) -> Tensor:
        """Which flags, one a tensor, are set for what every rank holds of it."""
        return flags

    def whole(self, tree: Any) -> Any:
        """The tensors of a tree, whole; not copies."""
        return tree

    def shares(self, saved: Mapping[Any, Any], own: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """What this rank holds of whole tensors; `own` are its tensors of these names."""
        return saved


def own_part(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor: its share, or all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
