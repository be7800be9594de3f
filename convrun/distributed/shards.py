"""A model of which each rank holds a share: weights, gradients, the optimizer's state and the EMA (fsdp).

torch's `fully_shard` cuts each weight up along its first dimension. Before a unit of the model (a block, a downsampling
layer, the head) computes, the ranks send each other their shares of its weights, and drop them afterwards; its
gradients are summed on the way to the rank that holds the share (ZeRO-3: Rajbhandari et al., arXiv:1910.02054).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from convrun.checkpoints.tensors import mapped
from convrun.distributed.group import Group
from convrun.distributed.strategy import Strategy
from convrun.errors import ModelError
from convrun.models.blocks import running_statistics, units_of


def shard(model: nn.Module, device: torch.device, dtype: torch.dtype | None) -> None:
    """Cuts a model up in place; its parameters are DTensors then, so the optimizer and the EMA come after.

    Args:
        model: on the CPU, the same on every rank; unit by unit it moves to the device, each a share.
        device: where this rank trains.
        dtype: of the weights that are sent and computed with; None: float32, as the shares are.

    Raises:
        ModelError: the model keeps what would differ between the ranks.
    """
    if (layer := running_statistics(model)) is not None:
        raise ModelError(
            f"distributed.strategy fsdp does not keep running statistics alike in all processes, and {layer} of "
            f"{type(model).__name__} has some; set distributed.strategy to ddp"
        )
    assert distributed.group.WORLD is not None
    mesh = DeviceMesh.from_group(distributed.group.WORLD, device.type)
    # No cast of what goes in: autocast decides that, as it does for ddp. Gradients are added up in float32.
    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32 if dtype is not None else None, cast_forward_inputs=False
    )
    # Shares are contiguous, so no weight can ask for activations in channels_last: the images do.
    model.register_forward_pre_hook(_in_channels_last)
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    for unit in [*units_of(model).values(), model]:
        # What is left to the model itself goes after each pass as well: an evaluation must not leave weights behind
        # that the next step makes stale.
        fully_shard(unit, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # The loss is the share of the whole batch already; gloo can only sum.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def _in_channels_last(_model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].contiguous(memory_format=torch.channels_last), *inputs[1:])


class Shards(Strategy):
    """A model cut up by `shard`, as one of all ranks trains it.

    The passes themselves are collective, so nothing is owed outside of them, and a rank that fails in the midst of one
    cannot be waited for.

    Args:
        model: cut up.
        group: all ranks.
    """

    can_retry = False
    is_whole = False

    def __init__(self, model: nn.Module, group: Group) -> None:
        assert isinstance(model, FSDPModule)
        super().__init__(model, group)
        self._fsdp = model

    def summing(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients are sent in a step's last backward pass alone; before it whole ones add up here."""
        self._fsdp.set_requires_gradient_sync(is_last)
        self._fsdp.set_is_last_backward(is_last)
        return contextlib.nullcontext()

    def add_up(self, value: Tensor) -> None:
        """Makes a step's number, in place, the sum of all ranks'."""
        self.group.add_up(value)

    def take_part(self, size: int) -> None:
        """A pass with one black image: the other ranks need this one's weights for theirs."""
        self.forward(torch.zeros(1, 3, size, size, device=next(self.model.parameters()).device))

    def norms_of_all(self, norms: Tensor) -> Tensor:
        """The norms of tensors, given those of this rank's shares of them; collective."""
        return self.group.add_up(norms.square()).sqrt()

    def true_for_all(self, flags: Tensor) -> Tensor:
        """Which flags are set on every rank; collective."""
        return self.group.add_up((~flags).float()) == 0

    def whole(self, tree: Any) -> Any:
        """A copy on the host, on rank 0; the others get a tree of empty tensors. Collective.

        One tensor after the other is gathered and sent to the host, so a device needs room for the largest alone.
        """
        return mapped(tree, self._gathered)

    def _gathered(self, tensor: Tensor) -> Tensor:
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        return full.detach().to("cpu", copy=True) if self.group.is_first else torch.empty(0)

    def shares(self, saved: Mapping[Any, Any], own: Mapping[Any, Any]) -> dict[Any, Any]:
        """This rank's shares of whole tensors, cut up as its own of these names are; nothing is sent."""
        return {name: share(value, own[name]) if name in own else value for name, value in saved.items()}


def share(value: Any, like: Any) -> Any:
    """This rank's share of a whole tensor, cut up as another of that shape; anything else as it is."""
    if not (isinstance(value, Tensor) and isinstance(like, DTensor) and value.shape == like.shape):
        return value
    return distribute_tensor(value.contiguous(), like.device_mesh, like.placements, src_data_rank=None)
