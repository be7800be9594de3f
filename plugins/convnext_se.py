"""ConvNeXt V2 with squeeze-and-excitation in place of GRN: the gate that V2's paper compares GRN with.

Copy this file beside a recipe and list it there:

    plugins: [convnext_se.py]
    model: {name: convnext_se, depths: [3, 3, 9, 3], dims: [96, 192, 384, 768]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convrun.contracts.model import Depths, Dims, DropPathRate
from convrun.keys import PositiveInt
from convrun.models.shapes import Shape
from convrun.registry import register

if TYPE_CHECKING:
    from torch import Tensor, nn


def _gate_width(channels: int, reduction: int) -> int:
    return max(1, 4 * channels // reduction)


def _count(
    num_classes: int, *, depths: tuple[int, ...], dims: tuple[int, ...], reduction: int = 16, **others: Any
) -> int:
    """The number of parameters from the shape alone: `convrun validate` shows it without importing torch."""
    plain = Shape(tuple(depths), tuple(dims)).parameters(num_classes, has_layer_scale=False)
    widths = [(n, 4 * c, _gate_width(c, reduction)) for n, c in zip(depths, dims, strict=True)]
    return plain + sum(n * (2 * hidden * narrow + narrow + hidden) for n, hidden, narrow in widths)


def _smallest_input(*, depths: tuple[int, ...], dims: tuple[int, ...], **others: Any) -> int:
    """Lets `convrun validate` refuse images that are too small; without it, `validate --build` and `run` find out."""
    return Shape(tuple(depths), tuple(dims)).smallest_input


@register("model", "convnext_se", parameters=_count, smallest_input=_smallest_input)
def convnext_se(
    num_classes: int,
    *,
    depths: Depths,
    dims: Dims,
    reduction: PositiveInt = 16,
    drop_path_rate: DropPathRate = 0.0,
) -> nn.Module:
    """A ConvNeXt V2 with squeeze-and-excitation (arXiv:1709.01507) in place of GRN (arXiv:2301.00808, section 4).

    reduction: factor by which the gate narrows a block's 4 × dims hidden channels
    """
    from timm.models.convnext import ConvNeXt

    # Built with GRN, so that each block has a module between its two linear layers that can be replaced.
    model: nn.Module = ConvNeXt(
        num_classes=num_classes,
        depths=depths,
        dims=dims,
        ls_init_value=None,
        use_grn=True,
        drop_path_rate=drop_path_rate,
    )
    gated = [(name, module) for name, module in model.named_modules() if name.endswith(".grn")]
    for name, _ in gated:
        mlp = model.get_submodule(name.removesuffix(".grn"))
        hidden = mlp.get_submodule("fc1").out_features
        assert isinstance(hidden, int)
        mlp.register_module("grn", _squeeze_excite(hidden, _gate_width(hidden // 4, reduction)))
    return model


def _squeeze_excite(channels: int, narrow: int) -> nn.Module:
    # The class is defined here, since a plugin that imports torch at its top slows every `convrun validate` down.
    import torch
    from torch import nn

    class SqueezeExcite(nn.Module):
        """A gate for each channel of [n, h, w, channels], from the means over h and w."""

        def __init__(self) -> None:
            super().__init__()
            self.narrow, self.widen = nn.Linear(channels, narrow), nn.Linear(narrow, channels)
            for layer in (self.narrow, self.widen):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

        def forward(self, x: Tensor) -> Tensor:
            pooled = x.mean((1, 2), keepdim=True)
            return x * torch.sigmoid(self.widen(torch.relu(self.narrow(pooled))))

    return SqueezeExcite()
