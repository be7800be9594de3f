"""Opens what should be an image file. Names may lead to anything, and a pipe or a device would block for ever."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def opened(path: str | Path) -> BinaryIO:
    """A regular file, open for reading.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is something else, or empty.
    """
    # Non-blocking, because opening a pipe would wait for a writer; it means nothing to a regular file.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"it is {KINDS.get(stat.S_IFMT(status.st_mode), 'something else')}, not a file")
        if status.st_size == 0:
            raise ValueError("it is empty (0 bytes), not an image")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
