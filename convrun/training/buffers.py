"""A model's buffers, such as the running statistics of batch norm, as they were before a step that is undone."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Buffers:
    """Copies, taken before a forward pass may change the originals. ConvNeXt has none, and pays nothing."""

    def __init__(self, model: nn.Module) -> None:
        self._own = list(model.buffers())
        self._copies: list[Tensor] = [torch.empty_like(buffer) for buffer in self._own]

    @torch.no_grad()
    def keep(self) -> None:
        """Notes the buffers as they are."""
        for copy, own in zip(self._copies, self._own, strict=True):
            copy.copy_(own)

    @torch.no_grad()
    def restore(self) -> None:
        """Brings back what was noted last."""
        for copy, own in zip(self._copies, self._own, strict=True):
            own.copy_(copy)
