"""The callbacks a recipe can name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from convrun.contracts.callback import Callback
from convrun.contracts.metrics import Weights
from convrun.keys import NonNegativeFloat, PositiveInt
from convrun.registry import register

if TYPE_CHECKING:
    from convrun.contracts.logger import RunInfo


@register("callback", "early_stopping")
class EarlyStopping(Callback):
    """Ends the run when a metric has not improved for some evaluations (Prechelt, Early stopping — but when?, 1998).

    metric: what is watched; top1 and top5 (percent) should rise, loss should fall
    patience: evaluations without an improvement after which the run ends
    min_delta: the change, in the metric's unit, that must be exceeded to count as an improvement
    weights: which weights' evaluation is watched: the model's or its EMA's
    """

    def __init__(
        self,
        run: RunInfo,
        *,
        metric: Literal["top1", "top5", "loss"] = "top1",
        patience: PositiveInt,
        min_delta: NonNegativeFloat = 0.0,
        weights: Weights = "model",
    ) -> None:
        self._metric, self._patience, self._min_delta, self._weights = metric, patience, min_delta, weights
        self._best: float | None = None
        self._waited = 0

    def on_evaluation(self, row: Mapping[str, Any]) -> str | None:
        """Counts evaluations since the best one; NaN is never an improvement."""
        if row["weights"] != self._weights:
            return None
        value = row[self._metric]
        if self._is_better(value):
            self._best, self._waited = value, 0
            return None
        self._waited += 1
        if self._waited < self._patience:
            return None
        best = "always NaN" if self._best is None else f"best {self._best:g}"
        return f"{self._metric} of the {self._weights} weights has not improved in {self._waited} evaluations ({best})"

    def _is_better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self._best is None:
            return True
        gain = self._best - value if self._metric == "loss" else value - self._best
        return gain > self._min_delta

    def state_dict(self) -> dict[str, Any]:
        """The best value so far and the evaluations since."""
        return {"best": self._best, "waited": self._waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on counting from the state of the checkpoint."""
        self._best, self._waited = state["best"], state["waited"]
