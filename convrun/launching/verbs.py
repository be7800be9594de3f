"""What the verbs `cancel` and `logs` do; everything they do can be called from here."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
from pathlib import Path
from typing import TextIO

from convrun.errors import ConvrunError, UsageError
from convrun.launching.log_files import last_lines, log_of
from convrun.launching.record import CANCELLED
from convrun.launching.run_state import ALIVE, state_of
from convrun.launching.watching import follow_run
from convrun.run_folder.claim import claims_in, read_claim
from convrun.run_folder.process_identity import this_process


def cancel(folder: Path) -> str:
    """Asks a run to save and end, wherever it is; returns what was done.

    Raises:
        UsageError: it is over already.
        ConvrunError: it cannot be reached from here.
    """
    run = state_of(folder)
    if run.state not in (*ALIVE, "unknown"):
        raise UsageError(f"the run in {folder} is over ({run.state}); there is nothing to cancel")
    if run.launch is None or run.job.state == "ended":
        return _signal_holder(folder)
    if not run.launch.info:
        raise ConvrunError(f"{folder} was prepared, but its launch.json names no job; nothing was sent, it seems")
    mark = folder / "logs" / CANCELLED
    mark.touch()  # first: nobody is to put the job back into the queue because it saved
    try:
        run.launch.maker().cancel(run.launch.info)
    except BaseException:
        mark.unlink(missing_ok=True)
        raise
    what = "it was waiting" if run.state == "waiting" else "it saves, then ends"
    return f"cancelled; {what}: convrun status {shlex.quote(str(folder))}"


def _signal_holder(folder: Path) -> str:
    """SIGTERM to the process that trains in a folder, if it is on this machine."""
    numbers = claims_in(folder)
    claim = read_claim(folder, numbers[-1]) if numbers else None
    if claim is None or claim.holder is None or claim.is_released:
        raise ConvrunError(f"nobody seems to train in {folder}")
    if not claim.holder.is_on_the_machine_of(this_process()):
        raise ConvrunError(f"the run is {claim.text}: cancel it there")
    with contextlib.suppress(ProcessLookupError):
        os.kill(claim.holder.pid, signal.SIGTERM)
    return f"{claim.text} was asked to save and end: convrun status {shlex.quote(str(folder))}"


def show_log(folder: Path, rank: int | None, *, is_followed: bool, out: TextIO) -> None:
    """Prints a run's log; `is_followed`: its last lines, then what is added until the run is over.

    Raises:
        UsageError: there is no such log.
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
        if state_of(folder).state not in ALIVE:
            raise
        path = folder / "logs" / (f"rank-{rank}.log" if rank else "launch.log")
    follow_run(folder, path, out, last_lines(path, 20))
