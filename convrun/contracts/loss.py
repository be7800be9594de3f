"""Losses: logits and targets in, one number out."""

from __future__ import annotations

from convrun.contracts.kind import Kind

LOSS = Kind(
    "loss",
    "convrun.components.losses",
    "loss",
    {},
    "function(logits [n, classes], targets: int64 [n] or float [n, classes]) -> scalar, the mean over the n images",
)
