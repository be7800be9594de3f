"""`validate --build`: the model, built: parameters, GMACs, parameter groups, memory."""

from __future__ import annotations

import math
from typing import Any

from convrun.errors import KeyProblem
from convrun.plan import Plan
from convrun.text.units import size_text
from convrun.validation.memory_text import memory_lines


def built_model(plan: Plan, with_names: bool = False) -> tuple[list[str], dict[str, Any]]:
    """Lines and data about the plan's model and how its optimizer sees it.

    The model lives on torch's meta device: shapes without memory, so XL costs no more than Tiny. One that cannot be
    built or computed there is built on the CPU, and its memory is not estimated.

    Raises:
        KeyProblem: the model does not take the run's images.
    """
    from convrun.training.parameter_groups import parameter_groups

    model, has_shapes = _built(plan)
    parameters = sum(p.numel() for p in model.parameters())
    settings = plan.optimizer.settings
    groups = parameter_groups(model, settings.layer_decay, settings.layer_decay_levels)
    macs = multiply_accumulates(model, plan.input_size)
    decayed = [g for g in groups if "weight_decay" not in g]
    lines = [
        f"{'built':<12} {parameters:,} parameters ({size_text(4 * parameters)} in float32), "
        f"{macs / 1e9:.3f} GMACs an image at {plan.input_size}",
        f"{'groups':<12} {len(groups)} parameter groups, {_count(decayed):,} parameters decay, "
        f"{_count(groups) - _count(decayed):,} do not",
    ]
    for group in groups:
        lines.append(
            f"{'':<12} lr × {group['lr_scale']:<8.4g} weight decay {'off' if 'weight_decay' in group else 'on':<3} "
            f"{_count([group]):>12,} parameters in {len(group['params'])} tensors  {group['label']}"
        )
        if with_names:
            lines += [f"{'':<14} {name}" for name in group["names"]]
    memory_table, memory_data = memory_lines(plan, model) if has_shapes else _unknown_memory()
    lines += memory_table
    init = _init_text(plan, model)
    lines += [f"{'init':<12} {init.removeprefix('init: ')}"] if init else []
    data = {
        "parameters": parameters,
        "gmacs": macs / 1e9,
        "init": init,
        "memory": memory_data,
        "groups": [
            {"names": g["names"], "lr_scale": g["lr_scale"], "decays": "weight_decay" not in g, "label": g["label"]}
            for g in groups
        ],
    }
    return lines, data


def _built(plan: Plan) -> tuple[Any, bool]:
    """The model, and whether its shapes alone can be computed."""
    import torch

    from convrun.models.trial import check_takes_images

    made: list[Any] = []

    def on_cpu() -> Any:
        with torch.random.fork_rng(devices=[]):
            made[:] = made or [plan.model.create(plan.num_classes)]
        return made[0]

    try:
        with torch.device("meta"):
            model = plan.model.create(plan.num_classes)
    except KeyProblem:
        raise
    except Exception:  # it computes with values when it is built, which only memory has
        model = on_cpu()
    has_shapes = check_takes_images(
        model,
        plan.input_size,
        plan.model.name,
        num_classes=plan.num_classes,
        micro_batch=plan.micro_batch,
        on_cpu=on_cpu,
    )
    return (model if has_shapes else on_cpu()), has_shapes


def _unknown_memory() -> tuple[list[str], list[dict[str, Any]]]:
    return [f"{'memory':<12} not known: the model's shapes depend on values"], []


def _init_text(plan: Plan, model: Any) -> str:
    """Whether the initial weights fit, if they are on this machine; nothing is downloaded."""
    from convrun.weights.initial import load_initial
    from convrun.weights.sources import is_local

    if plan.init is None:
        return ""
    if plan.init.from_ is not None and not is_local(plan.init.from_):
        return f"init: {plan.init.from_} is not downloaded by validate"
    return load_initial(model, plan.init, plan.num_classes)


def multiply_accumulates(model: Any, input_size: int) -> int:
    """Multiply-accumulates of one image's forward pass: half of what torch's FlopCounterMode counts."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.eval()(torch.empty(1, 3, input_size, input_size, device=device))
    return int(counter.get_total_flops()) // 2


def _count(groups: list[dict[str, Any]]) -> int:
    return sum(math.prod(p.shape) for g in groups for p in g["params"])
