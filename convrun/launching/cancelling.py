"""`convrun cancel`: a run is asked to save and end, wherever it trains."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
from pathlib import Path

from convrun.errors import ConvrunError, UsageError
from convrun.launching.record import CANCELLED
from convrun.launching.run_status import ALIVE, run_status
from convrun.run_folder.claim import claims_in, read_claim
from convrun.run_folder.process_identity import this_process


def cancel(folder: Path) -> str:
    """Asks a run to save and end, wherever it is; returns what was done.

    Raises:
        UsageError: the run has already ended.
        ConvrunError: the run cannot be reached from this machine.
    """
    run = run_status(folder)
    if run.state not in (*ALIVE, "unknown"):
        raise UsageError(f"the run in {folder} is over ({run.state}); there is nothing to cancel")
    if run.launch is None or run.job.state == "ended":
        return _signal_holder(folder)
    if not run.launch.info:
        raise ConvrunError(f"{folder} was prepared, but its launch.json names no job: it was probably never submitted")
    mark = folder / "logs" / CANCELLED
    mark.touch()  # before the signal: the job saves, and must not be requeued for that
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
        raise ConvrunError(f"no process is training in {folder}")
    if not claim.holder.is_on_the_machine_of(this_process()):
        raise ConvrunError(f"the run is {claim.text}: cancel it there")
    with contextlib.suppress(ProcessLookupError):
        os.kill(claim.holder.pid, signal.SIGTERM)
    return f"asked {claim.text} to save and end: convrun status {shlex.quote(str(folder))}"
