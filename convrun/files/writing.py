"""Writing in a run folder: whole or not at all, synced, and with errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from convrun.errors import RunFolderError


def write_whole(path: Path, *content: bytes | memoryview) -> None:
    """A file with this content, piece by piece, or none of it: written beside, synced, renamed, the folder synced."""
    draft = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.draft")
    draft.unlink(missing_ok=True)
    try:
        with draft.open("xb") as file:  # a file of its own: never through a link that lies there
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
    """What the system said: torch's zip writer hides a full disk behind a RuntimeError, convrun behind its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    return cause


def is_disk_full(error: BaseException) -> bool:
    """Whether it happened for want of room, on the disk or in the user's share of it."""
    system = system_error(error)
    return system is not None and system.errno in (errno.ENOSPC, errno.EDQUOT)
