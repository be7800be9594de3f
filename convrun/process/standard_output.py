"""Standard output whose errors differ from those of other files, sockets and processes."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator

DESCRIPTOR = 1


class OutputError(OSError):
    """Standard output cannot be written: a full disk, a device that fails."""


class StandardOutput(io.TextIOWrapper):
    """Raises OutputError where another stream raises OSError; a BrokenPipeError (the reader has gone) stays.

    Args:
        replaced: the stream that it replaces.
    """

    def __init__(self, replaced: io.TextIOWrapper) -> None:
        super().__init__(
            replaced.buffer,
            replaced.encoding,
            replaced.errors,
            line_buffering=replaced.line_buffering,
            write_through=replaced.write_through,
        )
        self._replaced = replaced  # kept: its destructor would close the buffer that both use

    def write(self, text: str, /) -> int:
        """Writes text."""
        with _told_apart():
            return super().write(text)

    def flush(self) -> None:
        """Writes the buffered text."""
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
    """Replaces the process's standard output; characters that its encoding lacks are escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if type(sys.stdout) is io.TextIOWrapper:  # a test's or a notebook's is left alone
        sys.stdout = StandardOutput(sys.stdout)


def discard_output() -> None:
    """Discards the buffered text: otherwise Python would report the same error again when it shuts down."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), DESCRIPTOR)
