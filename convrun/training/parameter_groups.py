"""Parameter groups: which weights decay, and how much of the learning rate each depth gets.

Layer decay follows ConvNeXt's fine-tuning code (arXiv:2201.03545): for 3-3-27-3 blocks there are 14 levels, the stem
at 0 and the head at 13, and a level's share of the learning rate is decay^(13 - level). The released code knows no
other depths. Ours is the same rule read for any: a level each for the stem, stages 0 and 1, every three blocks of
stage 2, stage 3, and the head. So 3-3-9-3 has 8 levels, 2-2-6-2 has 7.

ConvNeXt V2's fine-tuning code (arXiv:2301.00808) has, beside these groups, a level a block: a downsample belongs to
the block after it, the stem to the first block, norm and head come last. Small models are trained with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from convrun.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

BLOCKS_A_LEVEL = 3
ISOTROPIC_LEVELS = 12


def parameter_groups(
    model: nn.Module, layer_decay: float = 1.0, levels_by: Literal["group", "block"] = "group"
) -> list[dict[str, Any]]:
    """The trainable parameters of a bare model (not compiled, not wrapped) as groups for an optimizer.

    A group holds `params`, `names` (theirs, in order), `lr_scale`, `label` (for display), and `weight_decay: 0.0` only
    if its parameters must not decay. Groups go from the stem to the head, at each level those that decay first.

    Raises:
        ModelError: layer decay is asked for, but the depth of the model's parameters is not known.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    levels = dict.fromkeys(parameters, 0)
    if layer_decay != 1:
        levels = depth_levels(model, levels_by)
    undecayed = {name for name in parameters if is_undecayed(model, name)}
    top = max(levels.values())
    groups = []
    for level in sorted(set(levels.values())):
        for decays in (True, False):
            names = [n for n in parameters if levels[n] == level and (n not in undecayed) == decays]
            if names:
                groups.append(_group({n: parameters[n] for n in names}, level, layer_decay ** (top - level), decays))
    return groups


def _group(parameters: dict[str, nn.Parameter], level: int, lr_scale: float, decays: bool) -> dict[str, Any]:
    label = f"level {level}, {'decay' if decays else 'no decay'}"
    group = {"params": list(parameters.values()), "names": list(parameters), "label": label, "lr_scale": lr_scale}
    return group if decays else {**group, "weight_decay": 0.0}


def is_undecayed(model: nn.Module, name: str) -> bool:
    """Whether weight decay must skip a parameter.

    That is every 1-d one (norms, biases, layer scale), V2's GRN (4-d in its released weights), and what the model
    lists itself, as timm's transformers do with their position embeddings.
    """
    own: Iterable[str] = getattr(model, "no_weight_decay", set)()
    return model.get_parameter(name).ndim <= 1 or name.endswith(".bias") or ".grn." in name or name in own


def depth_levels(model: nn.Module, levels_by: Literal["group", "block"] = "group") -> dict[str, int]:
    """The depth level of every parameter; by groups 0 is the stem, by blocks 1 is the stem and the first block.

    Staged models have parameters named stem, stages.S.downsample, stages.S.blocks.N and head (or norm); isotropic
    ones stem, blocks.N and head (or norm). The blocks of an isotropic model share out 12 levels, as many as lie
    between the stem and the head of 3-3-27-3; shallower ones have a level a block.

    Raises:
        ModelError: the parameters are named otherwise, or it is a model of timm other than ConvNeXt.
    """
    names = [name for name, _ in model.named_parameters()]
    if _is_foreign(model) or not names:
        raise _unknown_depth(model)
    staged = _indices(r"stages\.2\.blocks\.(\d+)\.", names)
    isotropic = _indices(r"blocks\.(\d+)\.", names)
    if not staged and not isotropic:
        raise _unknown_depth(model)
    if levels_by == "block":
        stages = [len(_indices(rf"stages\.{s}\.blocks\.(\d+)\.", names)) for s in range(4)]
        depths = stages if staged else [len(isotropic)]
        levels = {n: _block_level(n, depths) for n in names}
    elif staged:
        levels = {n: _staged_level(n, len(staged)) for n in names}
    else:
        levels = {n: _isotropic_level(n, len(isotropic)) for n in names}
    unknown = [name for name, level in levels.items() if level is None]
    if unknown:
        raise _unknown_depth(model, unknown[0])
    return {name: level for name, level in levels.items() if level is not None}


def _staged_level(name: str, stage_2_blocks: int) -> int | None:
    above_stage_2 = 3 + -(-stage_2_blocks // BLOCKS_A_LEVEL)
    if block := re.match(r"stages\.2\.blocks\.(\d+)\.", name):
        return 3 + int(block[1]) // BLOCKS_A_LEVEL
    if stage := re.match(r"stages\.([0-3])\.(downsample|blocks)\.", name):
        return {0: 1, 1: 2, 2: 3, 3: above_stage_2}[int(stage[1])]
    return _end_level(name, above_stage_2 + 1)


def _block_level(name: str, depths: list[int]) -> int | None:
    if name.startswith("stem."):
        return 1
    if block := re.match(r"(?:stages\.(\d+)\.)?(?:blocks\.(\d+)|downsample)\.", name):
        return sum(depths[: int(block[1] or 0)]) + int(block[2] or 0) + 1
    return _end_level(name, sum(depths) + 1)


def _isotropic_level(name: str, blocks: int) -> int | None:
    levels = min(blocks, ISOTROPIC_LEVELS)
    if block := re.match(r"blocks\.(\d+)\.", name):
        return 1 + int(block[1]) * levels // blocks
    return _end_level(name, levels + 1)


def _end_level(name: str, top: int) -> int | None:
    if name.startswith("stem."):
        return 0
    return top if re.match(r"(norm|norm_pre|head)\.", name) else None


def _indices(pattern: str, names: list[str]) -> set[int]:
    return {int(match[1]) for name in names if (match := re.match(pattern, name))}


def _is_foreign(model: nn.Module) -> bool:
    """Names alone do not tell: timm's mixers, for one, have a stem, blocks and a head as well."""
    return type(model).__module__.startswith("timm.") and type(model).__module__ != "timm.models.convnext"


def _unknown_depth(model: nn.Module, name: str | None = None) -> ModelError:
    what = f"the parameter {name} of {type(model).__name__}" if name else type(model).__name__
    return ModelError(
        f"optimizer.layer_decay is not defined for {what}: convrun's levels are those of ConvNeXt; "
        "set optimizer.layer_decay to 1"
    )
