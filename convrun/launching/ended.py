"""Records how a launched run ended: `python -m convrun.launching.ended RUN_FOLDER NONCE CODE`.

It prints the run's exit code, and writes it to `logs/exits/job`. If the run was killed before it could update
status.json, that gets the state `failed`.
"""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convrun.errors import Interrupted, Preempted
from convrun.launching.log_files import LOG, tail
from convrun.launching.record import read_launch
from convrun.run_folder import RunFolder, State

EXITS = "logs/exits"  # how each process of the last start ended
STARTED = "started"  # a file in EXITS, written at each start: how many bytes the log had by then
CODES: dict[str, int] = {"finished": 0, "failed": 1, "diverged": 3, "preempted": 75, "interrupted": 130}
_STATES: dict[int, State] = {3: "diverged", 75: "preempted", 130: "interrupted"}


def note_end(folder: Path, nonce: str, code: int) -> int:
    """Records how a launch ended, unless the folder has been launched again; returns the run's exit code."""
    launch = read_launch(folder)
    if launch is None or launch.nonce != nonce:
        return code
    run, exits = RunFolder(folder), folder / EXITS
    exits.mkdir(parents=True, exist_ok=True)
    status = run.read_json("status.json")
    status = status if isinstance(status, dict) else {}
    if code != 0 and has_ended_in_this_start(folder, status):
        code = CODES.get(str(status.get("state")), code)
    elif code != 0:
        step, total = status.get("step"), status.get("total_steps")
        run.set_status(
            _STATES.get(code, "failed"),
            step if isinstance(step, int) else 0,
            total if isinstance(total, int) else 0,
            "" if code in (Preempted.exit_code, Interrupted.exit_code) else _why(folder, exits, code),
        )
    run.write(f"{EXITS}/job", f"{code}\n")
    return code


def has_ended_in_this_start(folder: Path, status: Mapping[str, Any]) -> bool:
    """Whether the run itself recorded how it ended, since its launcher last started it."""
    try:
        is_new = (folder / "status.json").stat().st_mtime_ns >= (folder / EXITS / STARTED).stat().st_mtime_ns
    except OSError:
        return False
    return is_new and status.get("state") in CODES


def _why(folder: Path, exits: Path, code: int) -> str:
    """The last error in the log of this start, else the process that failed."""
    try:
        older = int((exits / STARTED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        older = 0
    lines = [line[7:] for line in tail(folder / LOG, start=older).splitlines() if line.startswith("error: ")]
    if not lines:
        return f"{_who(exits, code)}; see convrun logs {shlex.quote(str(folder))}"
    return lines[-1] if lines[-1].startswith("rank ") else f"{_who(exits, code)}: {lines[-1]}"


def _who(exits: Path, code: int) -> str:
    """The first process that recorded a failure, else what the exit code says."""
    for path in sorted(exits.glob("rank-*"), key=lambda path: path.stat().st_mtime):
        words = path.read_text(encoding="utf-8").split()
        if len(words) == 2 and words[0] not in ("0", "75"):
            return f"{path.name.replace('-', ' ')} on {words[1]} ended with exit code {words[0]}"
    if code > 128:
        try:
            name = signal.Signals(code - 128).name
        except ValueError:
            name = f"signal {code - 128}"
        return f"a process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"the run ended with exit code {code}"


if __name__ == "__main__":
    print(note_end(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))  # noqa: T201 - the script reads it
