"""Which ConvNeXt a state dict is of, told from its tensors' names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from convrun.models.shapes import ISOTROPIC, SMALLER, V1, V2


def architecture_text(state: Mapping[str, Tensor]) -> str | None:
    """`convnext_tiny (3-3-9-3 blocks of 96-192-384-768 channels, layer scale)`; None if it is no ConvNeXt.

    Args:
        state: in convrun's names.
    """
    found = [m for key in state if (m := re.fullmatch(r"(?:stages\.(\d+)\.)?blocks\.\d+\.conv_dw\.weight", key))]
    if not found:
        return None
    widths = [(m[1] or "", state[m[0]].shape[0]) for m in found]
    stages = dict(widths)
    depths = tuple(sum(stage == other for other, _ in widths) for stage in stages)
    dims, has_grn = tuple(stages.values()), any(".grn." in key for key in state)
    name = _isotropic(depths, dims) if "" in stages else _staged(depths, dims, has_grn)
    blocks, channels = ("-".join(map(str, numbers)) for numbers in (depths, dims))
    extras = ["GRN"] * has_grn + ["layer scale" if any(k.endswith(".gamma") for k in state) else "no layer scale"]
    return f"{name} ({blocks} blocks of {channels} channels, {', '.join(extras)})"


def _staged(depths: tuple[int, ...], dims: tuple[int, ...], has_grn: bool) -> str:
    named = V1 | {f"convnext_{size}": shape for size, shape in SMALLER.items()}
    if has_grn:
        named = {f"convnextv2_{size}": shape for size, shape in V2.items()}
    return next((n for n, shape in named.items() if (shape.depths, shape.dims) == (depths, dims)), "a ConvNeXt")


def _isotropic(depths: tuple[int, ...], dims: tuple[int, ...]) -> str:
    shapes = {name: ((shape.depth,), (shape.dim,)) for name, shape in ISOTROPIC.items()}
    return next((name for name, shape in shapes.items() if shape == (depths, dims)), "an isotropic ConvNeXt")
