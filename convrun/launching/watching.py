"""`launch --wait` and `logs --follow`: the log as it grows, until the run is over."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TextIO

from convrun.launching.log_files import follow
from convrun.launching.run_state import ALIVE, RunState, state_of

# How often a scheduler is asked; the log itself is looked at more often.
ASK_SECONDS = 5.0


class Watched:
    """A run that is asked about no more often than its scheduler should be. What it waits for goes to stderr.

    Args:
        folder: of the run.
        is_alive: whether it is known to go on: then a scheduler that does not answer is asked again.
    """

    def __init__(self, folder: Path, *, is_alive: bool) -> None:
        self.folder = folder
        self._is_alive, self._told = is_alive, ""
        self._ask()

    def is_over(self) -> bool:
        """Whether the run has ended for good."""
        if time.monotonic() - self._asked >= ASK_SECONDS:
            self._ask()
        return not self._is_alive

    def _ask(self) -> None:
        run = self.state = state_of(self.folder)
        self._asked = time.monotonic()
        is_unanswered = run.job.state == "unknown" and bool(run.job.reason)
        # Saved, and perhaps in the queue again; every other end is the run's own word.
        may_go_on = self._is_alive and is_unanswered and run.state in ("preempted", "unknown")
        self._is_alive = run.state in ALIVE or may_go_on
        self._tell(run.job.reason if may_go_on else f"waiting: {run.why}" if run.state == "waiting" else "")

    def _tell(self, text: str) -> None:
        if text not in ("", self._told):
            print(f"convrun: {text}", file=sys.stderr, flush=True)  # noqa: T201
        self._told = text


def follow_run(folder: Path, log: Path, out: TextIO, start: int = 0, *, is_alive: bool = False) -> RunState:
    """Prints the log until the run is over; gives back how it ended. `is_alive`: it was sent just now."""
    watched = Watched(folder, is_alive=is_alive)
    follow(log, watched.is_over, out, start)
    return watched.state
