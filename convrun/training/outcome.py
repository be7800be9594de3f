"""How a run ended."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from convrun.distributed.failing.failure import Failure
from convrun.errors import ConvrunError, Diverged, Interrupted, Preempted
from convrun.run_folder import State
from convrun.text.units import duration_text

if TYPE_CHECKING:
    from convrun.process.signals import StopRequest
    from convrun.training.trainer import Trainer


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


def check_is_complete(trainer: Trainer, stop: StopRequest, start_step: int, command: str) -> None:
    """Raises what was asked for if steps or the last evaluation are left; all is saved.

    Args:
        trainer: as its loop ended.
        stop: what may have asked for it.
        start_step: where this start began.
        command: what goes on with the run, to paste.
    """
    plan, state = trainer.plan, trainer.state
    left = plan.total_steps - state.step
    if state.stopped_because or not (left or trainer.is_evaluation_due()):
        return
    if stop.signal is None and state.step == start_step:
        # Started again by a scheduler, it would get no further, for ever.
        raise ConvrunError(
            f"training.stop_after ({duration_text(plan.stop_after_seconds or 0)}) was over before this start "
            f"had done a step; give it longer: {command} training.stop_after=..."
        )
    what = f"{left} to go" if left else "its evaluation to go"
    raise stop.error(
        f"stopped after step {state.step} of {plan.total_steps} ({what}), all saved; go on with: {command}"
    )
