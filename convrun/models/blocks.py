"""A model's blocks and other parts, found by the names that ConvNeXt and most models of timm give them."""

from __future__ import annotations

import re

from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def blocks_of(model: nn.Module) -> dict[str, nn.Module]:
    """The blocks (`stages.2.blocks.5`, `blocks.5`) by name, in order; empty if the model names them differently."""
    return _outermost(model, r"(.*\.)?blocks\.\d+")


def units_of(model: nn.Module) -> dict[str, nn.Module]:
    """The units that fsdp shards one by one: the blocks, the downsampling layers between the stages, the head."""
    found = _outermost(model, r"(.*\.)?(blocks\.\d+|downsample)|head")
    return {name: unit for name, unit in found.items() if any(True for _ in unit.parameters())}


def running_statistics(module: nn.Module) -> str | None:
    """The name of a layer that keeps running statistics (batch norm), if there is one."""
    layers = module.named_modules()
    return next((name for name, m in layers if isinstance(m, _NormBase) and m.track_running_stats), None)


def _outermost(model: nn.Module, pattern: str) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if re.fullmatch(pattern, name) and not any(name.startswith(outer + ".") for outer in found):
            found[name] = module
    return found
