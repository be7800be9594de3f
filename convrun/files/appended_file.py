"""A file that grows by whole pieces. While the disk is full they wait in memory, in order."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from convrun.errors import RunFolderError
from convrun.files.writing import write_whole


class AppendedFile:
    """One file with one writer. Pieces reach the kernel at once and whole, so a killed process loses none of them.

    A full disk is reported once and raises nothing: the pieces wait, and each later call tries again. `flush` raises
    if some still wait.

    Args:
        path: the file, created if it does not exist.
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
        """Replaces the whole content of the file, or leaves it as it is."""
        self._waiting, self._replaces = content, True
        self._try()

    def content(self) -> bytes:
        """What the file holds, followed by what waits to be written."""
        if self._replaces:
            return self._waiting
        return (self.path.read_bytes()[: self._size] if self._size else b"") + self._waiting

    def ends_torn(self) -> bool:
        """Whether the last line is incomplete, because its writer was killed or the power failed."""
        return not self.content().endswith(b"\n") and self.content() != b""

    def flush(self) -> None:
        """Passes everything to the kernel, safe from a kill; a power cut may lose what has not been synced.

        Raises:
            RunFolderError: it cannot be written; it stays in memory.
        """
        try:
            self._write()
        except OSError as error:
            raise RunFolderError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Writes what waits, and closes.

        Raises:
            RunFolderError: something cannot be written.
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
        # Without a buffer: a loader worker may be forked at any moment, and would write a copy of the buffer as well.
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
            # Removes what a failed or interrupted attempt has written, which would otherwise tear or double a line.
            if os.fstat(self._descriptor).st_size > self._size:
                os.ftruncate(self._descriptor, self._size)
            size = self._size + len(self._waiting)
            rest = memoryview(self._waiting)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            # In one statement, so that no Ctrl-C comes between the two.
            self._size, self._waiting = size, b""

    def _replace(self) -> None:
        write_whole(self.path, self._waiting)
        replaced = self._descriptor
        self._open()
        os.close(replaced)  # last: if opening the new file fails, the next attempt still has an open one
        self._waiting, self._replaces = b"", False

    def _fatal(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            f"{self.path} cannot be written: {error.strerror or error}; free space on that disk or choose another with "
            "--output, then start again"
        )
