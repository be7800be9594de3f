"""Standard output, whose errors can be told from those of other files, of sockets and of processes."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator

DESCRIPTOR = 1


class OutputError(OSError):
    """What lies behind standard output takes no more: a full disk, a device that fails."""


class StandardOutput(io.TextIOWrapper):
    """Raises OutputError where another stream raises OSError; BrokenPipeError, of a reader that has gone, stays.

    Args:
        replaced: the stream whose place it takes.
    """

    def __init__(self, replaced: io.TextIOWrapper) -> None:
        super().__init__(
            replaced.buffer,
            replaced.encoding,
            replaced.errors,
            line_buffering=replaced.line_buffering,
            write_through=replaced.write_through,
        )
        self._replaced = replaced  # its end would close what both write to

    def write(self, text: str, /) -> int:
        """Writes text."""
        with _told_apart():
            return super().write(text)

    def flush(self) -> None:
        """Hands what waits to the kernel."""
        with _told_apart():
            super().flush()


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error.errno, error.strerror) from error


def prepare_output() -> None:
    """Makes the process's standard output one of these; a terminal or file that knows no × still shows the rest."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if type(sys.stdout) is io.TextIOWrapper:  # a test's or a notebook's is left alone
        sys.stdout = StandardOutput(sys.stdout)


def discard_output() -> None:
    """Sends what is still to be written nowhere: Python would complain once more when it shuts down."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), DESCRIPTOR)
