"""`validate --build`: the memory a process needs on its device, for each strategy."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from convrun.plan import Plan
from convrun.plan.memory import MemoryNeed, ModelSize, memory_need
from convrun.recipe.sections import Arithmetic, Strategy
from convrun.text.units import size_text

if TYPE_CHECKING:
    from torch import nn

COLUMNS = ("weights", "gradients", "optimizer", "EMA", "to compute", "activations", "total")
# FSDP is shown for a node of 8 GPUs if the plan is for one process.
SHOWN_PROCESSES = 8
COMPUTE_BYTES: dict[Arithmetic, int] = {"float32": 4, "bf16": 2, "fp16": 2}


def memory_lines(plan: Plan, model: nn.Module) -> tuple[list[str], list[dict[str, Any]]]:
    """A table of what the model and the optimizer can do, and the same as data.

    Empty if it is unknown what the optimizer keeps for each parameter.
    """
    from convrun.models.blocks import running_statistics

    meta = plan.optimizer.component.meta
    if meta.get("slots") is None:
        return [], []
    can_shard = bool(meta.get("shards", False)) and running_statistics(model) is None
    rows = _rows(plan, model_size(plan, model), can_shard)
    head = f"{'memory':<12} of a process, micro-batch {plan.micro_batch}, {_precision(plan)}; estimated"
    lines = [head, f"{'':<12} {'':<26}" + "".join(f"{name:>12}" for name in COLUMNS)]
    for label, found in rows:
        values = [*dataclasses.astuple(found), found.total]
        lines.append(f"{'':<12} {label:<26}" + "".join(f"{size_text(value):>12}" for value in values))
    return lines, [{"label": label, **dataclasses.asdict(found), "total": found.total} for label, found in rows]


def model_size(plan: Plan, model: nn.Module) -> ModelSize:
    """Of a model on the meta device."""
    from convrun.models.blocks import blocks_of, running_statistics, units_of
    from convrun.validation.activation_memory import activation_bytes

    counts = [sum(p.numel() for p in unit.parameters()) for unit in units_of(model).values()]
    parameters = sum(p.numel() for p in model.parameters())
    found = activation_bytes(model, plan.input_size, _precision(plan))
    is_checkpointable = all(running_statistics(block) is None for block in blocks_of(model).values())
    largest = max([*counts, parameters - sum(counts)])
    return ModelSize(parameters, largest, found.kept, found.checkpointed if is_checkpointable else None)


def _rows(plan: Plan, size: ModelSize, can_shard: bool) -> list[tuple[str, MemoryNeed]]:
    processes = plan.processes if plan.processes > 1 else SHOWN_PROCESSES
    strategies: list[tuple[Strategy, int]] = [("ddp", plan.processes)]
    strategies += [("fsdp", processes)] if can_shard else []
    return [
        (
            f"{strategy} on {count}{', checkpointing' if is_checkpointed else ''}",
            memory_need(
                size,
                strategy,
                count,
                micro_batch=plan.micro_batch,
                accumulation=plan.accumulation,
                slots=int(plan.optimizer.component.meta["slots"]),
                has_ema=plan.ema is not None,
                compute_bytes=COMPUTE_BYTES[_precision(plan)],
                is_checkpointed=is_checkpointed,
            ),
        )
        for strategy, count in strategies
        for is_checkpointed in (False, True)
        if size.checkpointed_activations is not None or not is_checkpointed
    ]


def _precision(plan: Plan) -> Arithmetic:
    return plan.precision or "bf16"  # a GPU's `auto`
