"""`launch --wait` and `logs --follow`: the log as it grows, until the run is over."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TextIO

from convrun.launching.log_files import follow
from convrun.launching.run_state import ALIVE, RunState, state_of

# How often a scheduler is asked; the log itself is looked at more often.
ASK_SECONDS = 5.0


class Watched:
    """A run that is asked about no more often than its scheduler should be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state: RunState = state_of(folder)
        self._asked = time.monotonic()

    def is_over(self) -> bool:
        """Whether the run has ended for good."""
        now = time.monotonic()
        if now - self._asked >= ASK_SECONDS:
            self.state, self._asked = state_of(self.folder), now
        return self.state.state not in ALIVE


def follow_run(folder: Path, log: Path, out: TextIO, start: int = 0) -> RunState:
    """Prints the log until the run is over; gives back how it ended."""
    watched = Watched(folder)
    follow(log, watched.is_over, out, start)
    return watched.state
