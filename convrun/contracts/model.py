"""Models: images in, one logit a class out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from convrun.contracts.kind import Kind
from convrun.keys import Fraction, Limits, NonNegativeFloat, PositiveInt

PerStage = Annotated[tuple[PositiveInt, ...], Limits(min_length=4, max_length=4)]
Depths = Annotated[PerStage, "blocks in each of the 4 stages"]
Dims = Annotated[PerStage, "channels in each of the 4 stages"]
DropPathRate = Annotated[
    Fraction, "probability to skip the last block for an image; earlier blocks rise to it linearly from 0"
]
DropRate = Annotated[Fraction, "probability to drop a feature before the head"]
LayerScaleInit = Annotated[
    NonNegativeFloat | None, "start value of each block's per-channel scale; null: no layer scale"
]


@dataclass(frozen=True)
class ModelSettings:
    """Keys that every model section takes beside the model's own.

    num_classes: size of the head; null: the classes of the data. A larger one leaves outputs that nothing trains for
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
        "smallest_input": "function(**keys) -> int, without torch: the least input_size that it takes",
    },
)
