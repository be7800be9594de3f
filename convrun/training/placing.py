"""A model on the device where it trains, in the form the plan gives it; the optimizer and the EMA come after."""

from __future__ import annotations

import torch
from torch import nn

from convrun.plan import Plan
from convrun.training.activation_checkpointing import checkpoint_activations


def placed(model: nn.Module, plan: Plan, device: torch.device) -> nn.Module:
    """The model, changed in place.

    Args:
        model: on the CPU, with its first weights.
        plan: says what each process holds of it.
        device: where it trains.

    Raises:
        ModelError: what the plan asks for cannot be done with this model.
    """
    if plan.distributed.activation_checkpointing:
        checkpoint_activations(model)
    if not plan.is_sharded:
        return model.to(device).to(memory_format=torch.channels_last)
    from convrun.distributed.sharding import shard

    shard(model, device, torch.bfloat16 if plan.precision == "bf16" else None)
    return model
