"""Models: the keys that all of them take."""

from __future__ import annotations

from dataclasses import dataclass

from convrun.contracts.kind import Kind
from convrun.keys import PositiveInt


@dataclass(frozen=True)
class ModelSettings:
    """Keys that every model section takes beside the model's own.

    num_classes: size of the head; null: the classes of the data. A larger one leaves outputs that nothing trains for
    """

    num_classes: PositiveInt | None = None


MODEL = Kind(
    "model",
    "convrun.components.models",
    "model",
    {"num_classes": "int, the size of the head"},
    "torch.nn.Module: float images [n, 3, height, width] -> logits [n, num_classes]",
    settings=ModelSettings,
    optional_meta={
        "parameters": "function(num_classes, **keys) -> int, without torch, so that validate knows sizes",
        "check": "function(**keys), without torch, that raises KeyProblem",
    },
)
