"""Callbacks: what may act on an evaluation, and end a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convrun.contracts.kind import Kind


class Callback:
    """What convrun calls on; a plugin overrides what it needs."""

    def on_evaluation(self, row: Mapping[str, Any]) -> str | None:
        """Called with every evaluation's row of metrics.jsonl; a text ends the run and says why."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold, as JSON-able values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from the state that a checkpoint held."""


CALLBACK = Kind(
    "callback",
    "convrun.components.callbacks",
    "callbacks",
    {"run": "convrun.contracts.logger.RunInfo"},
    "convrun.contracts.callback.Callback: on_evaluation(row) -> None or a reason to stop, and its state",
    is_list=True,
)
