"""Activation checkpointing (Chen et al., arXiv:1604.06174): a block's activations are recomputed when needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from convrun.errors import ModelError
from convrun.models.blocks import blocks_of, running_statistics


def checkpoint_activations(model: nn.Module) -> None:
    """Makes each block keep its input alone; names, weights and numbers stay as they are.

    torch notes the state of the random generators before a block and brings it back for the second pass, so drop path
    leaves out the same images, and it enters the same autocast.

    Raises:
        ModelError: the model has no blocks, or a second pass would change more than memory.
    """
    blocks = blocks_of(model)
    if not blocks:
        raise _refusal(f"{type(model).__name__} has none named blocks.N")
    for name, block in blocks.items():
        if (layer := running_statistics(block)) is not None:
            raise _refusal(f"a second pass through {name}.{layer} would count a batch twice in its running statistics")
    for block in blocks.values():
        # In the instance, where no wrapper changes the names of weights; hooks of the module stay around it.
        block.forward = _Checkpointed(block.forward)


class _Checkpointed:
    """A forward pass that keeps nothing but its arguments."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._forward(*inputs, **named)
        return checkpoint(self._forward, *inputs, use_reentrant=False, **named)


def _refusal(reason: str) -> ModelError:
    return ModelError(
        f"distributed.activation_checkpointing works block by block, but {reason}; "
        "set distributed.activation_checkpointing to false"
    )
