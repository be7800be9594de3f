"""The logs of a run: which file holds what, its last lines, and following it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from convrun.errors import UsageError

LOG = "logs/launch.log"  # what the launcher and every process printed, start after start
MOST_BYTES = 64 * 1024


def log_of(folder: Path, rank: int | None) -> Path:
    """The file to show: a rank's own, else the launch's, else what a run in the foreground showed.

    Raises:
        UsageError: the run has no such log.
    """
    if rank:
        wanted = [folder / "logs" / f"rank-{rank}.log"]
    else:
        wanted = [folder / "train.log"] if rank == 0 else [folder / LOG, folder / "train.log"]
    for path in wanted:
        if path.is_file():
            return path
    has = sorted(path.name for path in (folder / "logs").glob("rank-*.log"))
    others = f"; other ranks have {', '.join(has)}" if rank is not None and has else ""
    raise UsageError(f"there is no {wanted[0]} yet; convrun status {folder} says how far the run is{others}")


def tail(path: Path, most: int = MOST_BYTES, start: int = 0) -> str:
    """The last lines of a text file, none from before byte `start`; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(start, size - most))
            content = file.read(most)
    except OSError:
        return ""
    if size - most > start:
        content = content.partition(b"\n")[2]
    return content.decode("utf-8", "replace")


def last_lines(path: Path, count: int) -> int:
    """Where the last lines of a file begin, in bytes; 0 if it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - MOST_BYTES))
            content = file.read(size - file.tell())
    except OSError:
        return 0
    return size - sum(len(line) for line in content.splitlines(keepends=True)[-count:])


def follow(path: Path, is_over: Callable[[], bool], out: TextIO, start: int = 0, every: float = 0.5) -> None:
    """Prints a file from byte `start`, and what is added to it until `is_over`. The file need not exist yet."""
    at = start
    while True:
        over = is_over()  # asked before reading, so that everything written by then is printed
        at = _print_from(path, at, out, is_all=over)
        if over:
            return
        time.sleep(every)


def _print_from(path: Path, at: int, out: TextIO, *, is_all: bool) -> int:
    """Prints the lines from a byte on, an incomplete last line only if `is_all`; returns the byte it got to."""
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) < at:
                at = 0  # the file was replaced
            file.seek(at)
            content = file.read()
    except OSError:
        return at
    whole = len(content) if is_all else content.rfind(b"\n") + 1
    out.write(content[:whole].decode("utf-8", "replace"))
    out.flush()
    return at + whole
