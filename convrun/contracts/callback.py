"""Callbacks: they act on evaluations, and may end a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convrun.contracts.kind import Kind
from convrun.contracts.logger import RunInfo


class Callback:
    """The methods that convrun calls; a plugin overrides those it needs."""

    def on_evaluation(self, row: Mapping[str, Any]) -> str | None:
        """Called with each evaluation's row of metrics.jsonl; a text that it returns ends the run and says why."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold, as JSON-serializable values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state that a checkpoint held."""


CALLBACK = Kind(
    name="callback",
    module="convrun.components.callbacks",
    section="callbacks",
    receives={"run": RunInfo},
    returns=Callback,
    rules=(
        "all its state is in its state_dict; otherwise a resumed run differs from one without a stop",
        "each process of a run has its own, and rank 0's decides whether the run ends",
    ),
    is_list=True,
)
