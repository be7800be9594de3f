"""`convrun logs` and `launch --wait`: a run's log, and the log as it grows until the run has ended."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TextIO

from convrun.errors import UsageError
from convrun.launching.log_files import follow, last_lines, log_of
from convrun.launching.run_status import ALIVE, RunStatus, run_status

# How often a scheduler is asked; the log itself is looked at more often.
ASK_SECONDS = 5.0


class Watched:
    """A run whose status is asked for at the pace that its scheduler tolerates. What it waits for goes to stderr.

    Args:
        folder: the run folder.
        is_alive: whether the run is known to be alive: then a scheduler that does not answer is asked again.
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
        run = self.status = run_status(self.folder)
        self._asked = time.monotonic()
        is_unanswered = run.job.state == "unknown" and bool(run.job.reason)
        # A preempted run may be back in the queue; every other end was written by the run itself.
        may_go_on = self._is_alive and is_unanswered and run.state in ("preempted", "unknown")
        self._is_alive = run.state in ALIVE or may_go_on
        self._tell(run.job.reason if may_go_on else f"waiting: {run.why}" if run.state == "waiting" else "")

    def _tell(self, text: str) -> None:
        if text not in ("", self._told):
            print(f"convrun: {text}", file=sys.stderr, flush=True)  # noqa: T201
        self._told = text


def follow_run(folder: Path, log: Path, out: TextIO, start: int = 0, *, is_alive: bool = False) -> RunStatus:
    """Prints the log until the run has ended; returns how it ended. `is_alive`: it was submitted just now."""
    watched = Watched(folder, is_alive=is_alive)
    follow(log, watched.is_over, out, start)
    return watched.status


def show_log(folder: Path, rank: int | None, *, is_followed: bool, out: TextIO) -> None:
    """Prints a run's log; `is_followed`: its last lines, then what is added until the run has ended.

    Raises:
        UsageError: the run has no such log.
    """
    if not is_followed:
        path = log_of(folder, rank)
        with path.open(encoding="utf-8", errors="replace") as file:
            while block := file.read(1 << 20):
                out.write(block)
        return
    try:
        path = log_of(folder, rank)
    except UsageError:
        if run_status(folder).state not in ALIVE:
            raise
        path = folder / "logs" / (f"rank-{rank}.log" if rank else "launch.log")
    follow_run(folder, path, out, last_lines(path, 20))
