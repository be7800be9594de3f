"""The arithmetic of the forward pass: float32, bf16 by autocast, fp16 by autocast with loss scaling."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from convrun.recipe.sections import Arithmetic

# What autocast computes in; None: without it.
DTYPES: dict[Arithmetic, torch.dtype | None] = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast and the loss scaler that belongs to it.

    Args:
        name: what the plan says.
        device: where the forward pass runs.
    """

    def __init__(self, name: Arithmetic, device: torch.device) -> None:
        self.device = device
        self.dtype = DTYPES[name]
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context of a forward pass."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @property
    def is_loss_scaled(self) -> bool:
        """Whether gradients may overflow, and the scaler deals with it."""
        return bool(self.scaler.is_enabled())

    @property
    def loss_scale(self) -> float:
        """The factor on the loss; reading it waits for the device, in fp16 only."""
        return float(self.scaler.get_scale()) if self.is_loss_scaled else 1.0

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divides the gradients by the loss scale, and notes on the device whether one overflowed; fp16 only."""
        self.scaler.unscale_(optimizer)

    def skip_step(self) -> None:
        """The step under way is skipped; in fp16 an overflow in it still lowers the loss scale."""
        if self.is_loss_scaled:
            self.scaler.update()

    def forget_step(self) -> None:
        """The step under way is retried: the scaler must not remember that its gradients were unscaled already."""
        if self.is_loss_scaled:
            state = self.scaler.state_dict()
            self.scaler = torch.amp.GradScaler(self.device.type)
            self.scaler.load_state_dict(state)

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Steps the optimizer; False if the scaler skipped the step because a gradient overflowed."""
        if not self.scaler.is_enabled():
            optimizer.step()
            return True
        before = self.scaler.get_scale()
        self.scaler.step(optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= before
