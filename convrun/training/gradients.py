"""The gradients of a step: their norms by parameter group, and clipping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convrun.distributed.sharding import own_part


class Gradients:
    """Of all parameters that an optimizer has.

    Args:
        groups: the optimizer's parameter groups.
        device: where they are.
        norms_of_all: given the norms of what this process holds of each gradient, those of the whole gradients.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        device: torch.device,
        norms_of_all: Callable[[Tensor], Tensor] = lambda norms: norms,
    ) -> None:
        self._groups: list[list[nn.Parameter]] = [list(group["params"]) for group in groups]
        self._parameters = [parameter for group in self._groups for parameter in group]
        self._norms_of_all = norms_of_all
        self._none = torch.zeros(1 + len(groups), device=device)

    @torch.no_grad()
    def norms(self) -> Tensor:
        """float32 [1 + groups]: the norm of the whole gradient, and of each group's; nothing waits for the device.

        A number that is not finite makes its group's norm and the whole one not finite. So does, in float32, a norm
        beyond 1.8e19.
        """
        gradients = [[own_part(p.grad) for p in group if p.grad is not None] for group in self._groups]
        flat = [gradient for group in gradients for gradient in group]
        if not flat:
            return self._none
        each = self._norms_of_all(torch.stack(torch._foreach_norm(flat)))
        of_groups = torch._foreach_norm(torch.split(each, [len(group) for group in gradients]))
        # The order of torch's own clip_grad_norm_: the norm of the tensors' norms.
        return torch.stack([torch.linalg.vector_norm(each), *of_groups])

    def clip(self, norm: Tensor, most: float) -> None:
        """Scales the gradient down to the norm `most`, given its norm."""
        nn.utils.clip_grads_with_norm_(self._parameters, most, norm)
