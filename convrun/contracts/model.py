"""Models: images in, one logit per class out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from convrun.contracts.kind import Kind
from convrun.keys import Fraction, Limits, NonNegativeFloat, PositiveInt

PerStage = Annotated[tuple[PositiveInt, ...], Limits(min_length=4, max_length=4)]
Depths = Annotated[PerStage, "blocks in each of the 4 stages"]
Dims = Annotated[PerStage, "channels in each of the 4 stages"]
DropPathRate = Annotated[
    Fraction, "probability of skipping the last block for an image; those of earlier blocks rise to it linearly from 0"
]
DropRate = Annotated[Fraction, "probability of dropping a feature before the head"]
LayerScaleInit = Annotated[
    NonNegativeFloat | None, "initial value of each block's per-channel scale; null: no layer scale"
]


@dataclass(frozen=True)
class ModelSettings:
    """Keys that every model section takes besides the model's own.

    num_classes: size of the head; null: the classes of the data. In a larger one some outputs stand for no class
    """

    num_classes: PositiveInt | None = None


MODEL = Kind(
    name="model",
    module="convrun.components.models",
    section="model",
    receives={"num_classes": "int, the size of the head"},
    returns="torch.nn.Module: float images [n, 3, height, width] -> logits [n, num_classes]",
    settings=ModelSettings,
    optional_meta={
        "parameters": "function(num_classes, **keys) -> int, without torch, so that validate knows sizes",
        "check": "function(**keys), without torch, that raises KeyProblem",
        "smallest_input": "function(**keys) -> int, without torch: the smallest input_size that it takes",
    },
)
