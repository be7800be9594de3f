"""Losses: logits and targets in, one number out."""

from __future__ import annotations

from typing import Annotated

from convrun.contracts.kind import Kind
from convrun.keys import Fraction

# A key that several losses share.
LabelSmoothing = Annotated[
    Fraction, "share s of the target spread evenly: s/K on every class, 1 - s more on the true one"
]

LOSS = Kind(
    "loss",
    "convrun.components.losses",
    "loss",
    {},
    "function(logits [n, classes], targets: int64 [n] or float [n, classes]) -> scalar, the mean over the n images",
)
