"""Where the processes beside rank 0 print: `logs/rank-N.log` in the run folder, so that the terminal is rank 0's."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from convrun.process.world import World
from convrun.run_folder import explained

STANDARD_OUTPUT, STANDARD_ERROR = 1, 2


class Terminal:
    """The standard error this process was started with, whatever is done to the stream later."""

    def __init__(self) -> None:
        self._descriptor = os.dup(STANDARD_ERROR)

    @property
    def is_replaced(self) -> bool:
        """Whether what the process prints goes elsewhere by now."""
        return not os.path.sameopenfile(self._descriptor, STANDARD_ERROR)

    def say(self, text: str) -> None:
        """Lines for the user, written in one piece: other processes write there as well."""
        with contextlib.suppress(OSError):  # a terminal that is gone; the exit code tells still
            os.write(self._descriptor, (text + "\n").encode(errors="backslashreplace"))


def print_to_log(folder: Path, world: World) -> Path:
    """Appends all that this process prints from now on, its libraries included, to its log; returns the file.

    Raises:
        RunFolderError: it cannot be written.
    """
    path = folder / "logs" / f"rank-{world.rank}.log"
    with explained(f"{path}", "the run folder must be on a disk that all nodes see: choose another with --output"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    for descriptor in (STANDARD_OUTPUT, STANDARD_ERROR):
        os.dup2(file, descriptor)
    os.close(file)
    if world.board is not None:
        with contextlib.suppress(OSError):  # the parent shows less then
            latest_log(Path(world.board), world.rank).symlink_to(path)
    return path


def latest_log(board: Path, rank: int) -> Path:
    """Where the parent of a run's processes finds the log of one: a link."""
    return board / f"rank-{rank}.log"
