"""How a run ended."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from convrun.distributed.failure import Failure
from convrun.errors import Diverged, Interrupted, Preempted
from convrun.run_folder import State


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        folder: the run folder.
        top1: the best reported top-1 in percent; None if nothing was evaluated.
        step: optimizer steps done.
        was_finished: there was nothing left to do.
        stopped_because: why a callback ended it, if one did.
    """

    folder: Path
    top1: float | None
    step: int
    was_finished: bool = False
    stopped_because: str = ""


def state_of(failure: Failure) -> State:
    """The state of a run that ended so in another process."""
    states: dict[int, State] = {
        Diverged.exit_code: "diverged",
        Interrupted.exit_code: "interrupted",
        Preempted.exit_code: "preempted",
    }
    return states.get(failure.exit_code, "failed")


def state_after(error: BaseException) -> State:
    """The state of a run that ended with an error here."""
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, Preempted):
        return "preempted"
    return "diverged" if isinstance(error, Diverged) else "failed"
