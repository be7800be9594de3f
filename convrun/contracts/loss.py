"""Losses: logits and targets in, one number out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeAlias

from convrun.contracts.kind import Kind
from convrun.keys import Fraction

if TYPE_CHECKING:
    from torch import Tensor

Loss: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"

LabelSmoothing = Annotated[
    Fraction, "share s of the target spread evenly: s/K on every class, 1 - s more on the true one"
]

LOSS = Kind(
    name="loss",
    module="convrun.components.losses",
    section="loss",
    returns="function(logits [n, classes], targets: int64 [n] or float [n, classes]) -> scalar, the mean over the n "
    "images",
)
