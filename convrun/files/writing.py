"""Writes files whole or not at all, synced, and with errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from convrun.errors import RunFolderError


def write_whole(path: Path, *content: bytes | memoryview) -> None:
    """Writes a file whole or not at all: a draft beside it is written piece by piece, synced and renamed."""
    draft = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.draft")
    draft.unlink(missing_ok=True)
    try:
        with draft.open("xb") as file:  # creates it: never writes through an existing link
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explained(what: str, cure: str) -> Iterator[None]:
    """An OSError inside becomes a RunFolderError that says what could not be written and what to do."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(f"{what} cannot be written: {error.strerror or error}; {cure}") from error


def system_error(error: BaseException) -> OSError | None:
    """The OSError behind an error: torch's zip writer turns it into a RuntimeError, convrun into a RunFolderError."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    return cause


def is_disk_full(error: BaseException) -> bool:
    """Whether it happened because the disk, or the user's quota on it, is full."""
    system = system_error(error)
    return system is not None and system.errno in (errno.ENOSPC, errno.EDQUOT)
