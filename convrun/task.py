"""What each process of a launched run executes: `python -m convrun.task RUN_FOLDER NONCE`.

It checks that this node sees the run folder, does what `convrun run RUN_FOLDER` does, and writes the exit code to
`logs/exits/rank-N`, since a launcher reports one exit code for all processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from types import FrameType

from convrun.errors import Preempted
from convrun.launching.record import read_launch
from convrun.process.signals import SCHEDULER_SIGNALS

# Rank 0 gets this long to record how the run ended, before another process's exit makes the launcher kill it.
SECONDS_FOR_RANK_0 = 10


def main(arguments: list[str]) -> int:
    """Runs the task; returns its exit code."""
    folder, nonce = Path(arguments[0]), arguments[1]
    if complaint := why_unusable(folder, nonce):
        print(f"error: {complaint}", file=sys.stderr, flush=True)  # noqa: T201
        return 1
    rank = this_rank()
    code = _trained(folder, arguments[2:])
    _ignore_signals()  # the exit code is decided
    return leave(folder, rank, code)


def this_rank() -> int:
    """This process's rank: torchrun's, else Slurm's, else 0."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)


def this_node() -> str:
    """This node's name; several may share a host name where Slurm runs several on one machine."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def why_unusable(folder: Path, nonce: str) -> str:
    """Why this node cannot run the launched run folder; empty if it can."""
    where = f"node {this_node()}"
    if not folder.is_dir():
        return f"{where} does not see the run folder {folder}; launch with --output on a disk that all nodes share"
    launch = read_launch(folder)
    if launch is None or launch.nonce != nonce:
        return (
            f"{where} sees another {folder} than was launched; launch with --output on a disk that all nodes share, "
            "and into a folder only once at a time"
        )
    if not Path(launch.working_folder).is_dir():
        return f"{where} does not see the working folder {launch.working_folder}; launch from a disk that all share"
    os.chdir(launch.working_folder)
    return ""


def _trained(folder: Path, extra: list[str]) -> int:
    """Does what `convrun run FOLDER` does; returns its exit code, whatever happens."""
    for number in SCHEDULER_SIGNALS:
        signal.signal(number, _stop_before_training)
    try:
        from convrun.entry import main as convrun

        sys.argv = ["convrun", "run", str(folder), *extra]
        convrun()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)  # noqa: T201
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        traceback.print_exc()
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _stop_before_training(_number: int, _frame: FrameType | None) -> None:
    """Python is still importing, or the data are being opened: nothing is lost, and the run can be started again."""
    sys.exit(Preempted.exit_code)


def _ignore_signals() -> None:
    for number in SCHEDULER_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave(folder: Path, rank: int, code: int) -> int:
    """Writes the exit code; returns the code to exit with, when it is safe to exit.

    A process that exits with a code other than 0 makes srun kill the others at once. So every rank but 0 exits with 0
    when the run was saved, since rank 0 may still be writing; and a rank that failed gives rank 0 time to record it.
    """
    exits = folder / "logs" / "exits"
    with contextlib.suppress(OSError):  # a full disk: the launcher still has the code itself
        exits.mkdir(parents=True, exist_ok=True)
        draft = exits / f".rank-{rank}"
        draft.write_text(f"{code} {this_node()}\n", encoding="utf-8")
        draft.replace(exits / f"rank-{rank}")
    if rank == 0 or code == 0:
        return code
    if code == Preempted.exit_code:
        return 0
    end = time.monotonic() + SECONDS_FOR_RANK_0
    while time.monotonic() < end and not (exits / "rank-0").exists():
        time.sleep(0.1)
    return code


if __name__ == "__main__":
    ended_with = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(ended_with)
