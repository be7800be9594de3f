"""What a run must remember beside weights and optimizer: one dataclass, saved with every checkpoint."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass
class RunState:
    """Where a run stands.

    Attributes:
        step: optimizer steps done.
        evaluated_step: the last step after which the weights were evaluated.
        best: (reported top-1 in percent, step) of the best evaluations, best first, as many as are kept (at least 1).
        skipped_steps: steps that fp16's loss scaling skipped.
        nonfinite_steps: steps that were left out because a number in them was none (`training.nonfinite: skip`).
        forward_splits: parts in which a micro-batch goes through the model, because the whole did not fit.
        evaluation_splits: the same for a batch of the evaluation.
        callbacks: what each callback must remember, in their order.
        stopped_because: why a callback ended the run, if one did.
    """

    step: int = 0
    evaluated_step: int = 0
    best: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    skipped_steps: int = 0
    nonfinite_steps: int = 0
    forward_splits: int = 1
    evaluation_splits: int = 1
    callbacks: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    stopped_because: str = ""

    def state_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return dataclasses.asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from saved values."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, state[field.name])
        self.best = [(value, step) for value, step in self.best]

    @classmethod
    def missing_in(cls, state: dict[str, Any]) -> list[str]:
        """The names of the values that a saved state lacks."""
        return [field.name for field in dataclasses.fields(cls) if field.name not in state]

    def note_result(self, value: float, keep: int) -> bool:
        """Enters an evaluation among the best; whether it is the new best. A tie goes to the earlier step."""
        self.best = sorted([*self.best, (value, self.step)], key=lambda item: (-item[0], item[1]))[: max(1, keep)]
        return self.best[0] == (value, self.step)
