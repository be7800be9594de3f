"""Callbacks: what may act on an evaluation, and end a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convrun.contracts.kind import Kind
from convrun.contracts.logger import RunInfo


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
    name="callback",
    module="convrun.components.callbacks",
    section="callbacks",
    receives={"run": RunInfo},
    returns=Callback,
    rules=(
        "whatever it keeps is in its state_dict, or a run that is resumed is no longer the same run",
        "each process of a run has its own, and rank 0's decides whether the run ends",
    ),
    is_list=True,
)
