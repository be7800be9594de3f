"""The model: built with its first weights, placed on its device, and what it is fed with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from convrun.distributed.group import Group
from convrun.distributed.replicas import Replicas
from convrun.distributed.strategy import Strategy
from convrun.plan import Plan
from convrun.randomness import derived_seed
from convrun.training.activation_checkpointing import checkpoint_activations

Inputs = Callable[[Tensor], Tensor]


def build_model(plan: Plan) -> nn.Module:
    """The plan's model with its first weights, on the CPU; they depend on the seed alone."""
    torch.manual_seed(derived_seed("weights", plan.seed))
    model: nn.Module = plan.model.create(plan.num_classes)
    return model


def placed(model: nn.Module, plan: Plan, device: torch.device) -> nn.Module:
    """The model on the device where it trains, changed in place; the optimizer and the EMA come after.

    Args:
        model: on the CPU, with its first weights.
        plan: says what each rank holds of it.
        device: where it trains.

    Raises:
        ModelError: what the plan asks for cannot be done with this model.
    """
    if plan.distributed.activation_checkpointing:
        checkpoint_activations(model)
    if not plan.is_sharded:
        # Weights in channels_last make torch take its channels_last kernels, and activations stay in that format.
        return model.to(device).to(memory_format=torch.channels_last)
    from convrun.distributed.shards import shard

    shard(model, device, torch.bfloat16 if plan.precision == "bf16" else None)
    return model


def strategy_for(plan: Plan, model: nn.Module, group: Group) -> Strategy:
    """How the ranks train a model that was placed."""
    if plan.is_sharded:
        from convrun.distributed.shards import Shards

        return Shards(model, group)
    return Replicas(model, group) if group.size > 1 else Strategy(model, group)


class Normalised:
    """uint8 images -> what the model is fed with.

    Args:
        mean: per channel, of pixel values in 0..1.
        std: likewise.
        device: where the model is.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self._mean, self._std = (torch.tensor(v, device=device)[:, None, None] for v in (mean, std))

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 images [n, 3, h, w] on the device as float32, (x / 255 − mean) / std; channels_last stays so."""
        # uint8 travels: a quarter of the bytes of float32. In place afterwards: one pass over memory each, no copies.
        images = images.to(self._mean.device, non_blocking=True).float()
        return images.div_(255).sub_(self._mean).div_(self._std)
