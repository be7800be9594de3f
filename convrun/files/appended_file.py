"""A file that grows by whole pieces: what finds no room waits in memory, in order, until there is some."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from convrun.errors import RunFolderError
from convrun.files.writing import write_whole


class AppendedFile:
    """One file with one writer. Pieces reach the kernel at once and whole; a killed process loses none of them.

    A disk that is full is said once and raises nothing: the pieces wait, and each later call tries again. Whoever must
    know that nothing waits calls `flush`.

    Args:
        path: the file, made if it is not there.
        say: shows a line to the user.

    Raises:
        RunFolderError: it cannot be opened.
    """

    def __init__(self, path: Path, say: Callable[[str], None] = lambda text: None) -> None:
        self.path, self._say = path, say
        self._waiting = b""
        self._replaces = False
        self._is_behind = False
        self._descriptor = -1
        try:
            self._open()
        except OSError as error:
            raise self._fatal(error) from error

    def append(self, piece: bytes) -> None:
        """Adds a piece at the end."""
        self._waiting += piece
        self._try()

    def replace(self, content: bytes) -> None:
        """Gives the file another content, whole or not at all."""
        self._waiting, self._replaces = content, True
        self._try()

    def content(self) -> bytes:
        """What the file holds, and what it is still to hold."""
        if self._replaces:
            return self._waiting
        return (self.path.read_bytes()[: self._size] if self._size else b"") + self._waiting

    def ends_torn(self) -> bool:
        """Whether the last line has no end: its writer was killed, or the power went."""
        return not self.content().endswith(b"\n") and self.content() != b""

    def flush(self) -> None:
        """Hands everything to the kernel, safe from a kill; a power cut may take what nobody has synced.

        Raises:
            RunFolderError: that cannot be done; what waits goes on waiting.
        """
        try:
            self._write()
        except OSError as error:
            raise RunFolderError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Writes what waits, and closes.

        Raises:
            RunFolderError: something is left that cannot be written.
        """
        try:
            self._write()
        except OSError as error:
            raise self._fatal(error) from error
        finally:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)

    def _open(self) -> None:
        # Without a buffer: a loader worker, forked at whatever moment, has nothing that it could write a second time.
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._size = os.fstat(self._descriptor).st_size

    def _try(self) -> None:
        try:
            self._write()
        except OSError as error:
            was_behind, self._is_behind = self._is_behind, True
            if not was_behind:
                reason = error.strerror or error
                self._say(f"{self.path} cannot be written: {reason}; training goes on, and its lines wait in memory")
            return
        if self._is_behind:
            self._is_behind = False
            self._say(f"{self.path} is written again, nothing is missing")

    def _write(self) -> None:
        if self._replaces:
            self._replace()
        elif self._waiting:
            # What an attempt that failed or was interrupted has left would tear a line, or double it.
            if os.fstat(self._descriptor).st_size > self._size:
                os.ftruncate(self._descriptor, self._size)
            size = self._size + len(self._waiting)
            rest = memoryview(self._waiting)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            # In one statement: no Ctrl-C comes between the two.
            self._size, self._waiting = size, b""

    def _replace(self) -> None:
        write_whole(self.path, self._waiting)
        replaced = self._descriptor
        self._open()
        os.close(replaced)  # last: an attempt that failed to open the new file begins anew with one that is open
        self._waiting, self._replaces = b"", False

    def _fatal(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            f"{self.path} cannot be written: {error.strerror or error}; free space on that disk or choose another with "
            "--output, then start again"
        )
