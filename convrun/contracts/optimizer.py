"""Optimizers: parameter groups in, a torch optimizer out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from convrun.contracts.kind import Kind
from convrun.keys import Betas, Limits, NonNegativeFloat, PositiveFloat, PositiveInt

Groups = list[dict[str, Any]]

LearningRate = Annotated[PositiveFloat, "peak learning rate; the scheduler stays at or below it"]
DecoupledDecay = Annotated[
    NonNegativeFloat, "decoupled weight decay: each step subtracts lr × weight_decay × the weight from a weight"
]
AdamBetas = Annotated[Betas, "decay per step of the running means of the gradient and of its square"]
Epsilon = Annotated[PositiveFloat, "added to the denominator"]


@dataclass(frozen=True)
class OptimizerSettings:
    """Keys that every optimizer section takes besides the optimizer's own.

    layer_decay: factor per depth level that multiplies the learning rate of earlier layers (1 = off)
    layer_decay_levels: what a level is: `group`, three blocks of stage 2 or the whole of another stage (V1's
        fine-tuning), or `block`, one block (V2's `single`)
    lr_for_batch: the batch size that `lr` is meant for; the plan scales lr by batch_size / lr_for_batch
    """

    layer_decay: Annotated[float, Limits(gt=0, le=1)] = 1.0
    layer_decay_levels: Literal["group", "block"] = "group"
    lr_for_batch: PositiveInt | None = None


OPTIMIZER = Kind(
    name="optimizer",
    module="convrun.components.optimizers",
    section="optimizer",
    receives={
        "parameter_groups": "list of {params, lr_scale, weight_decay}; weight_decay is there only where it is 0, and "
        "the other groups take the optimizer's key; lr_scale comes from layer_decay, and torch saves it with the group"
    },
    returns="torch.optim.Optimizer; before each step convrun sets every group's lr to lr(step) × lr_scale",
    required_keys=("lr",),
    settings=OptimizerSettings,
    optional_meta={
        "slots": "values that it keeps for each parameter, so that validate knows the size of checkpoints",
        "shards": "True: it computes the same on torch's DTensors, of which each process holds a share (fsdp)",
        "check": "function(**keys), without torch, that raises KeyProblem",
    },
)
