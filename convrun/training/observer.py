"""What the training loop tells the outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from convrun.training.faults.non_finite import Fault

if TYPE_CHECKING:
    from convrun.training.trainer import Trainer


class Observer(Protocol):
    """Whoever writes down what the loop does."""

    def log(self, row: dict[str, Any]) -> None:
        """A row of metrics.jsonl."""

    def say(self, text: str) -> None:
        """A line for the user."""

    def note_fault(self, fault: Fault) -> None:
        """A number of a step is none."""

    def advance(self, step: int) -> None:
        """An optimizer step is done."""

    def save(self, trainer: Trainer) -> None:
        """The state is to be saved."""
