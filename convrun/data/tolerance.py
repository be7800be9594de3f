"""What a feed puts up with: disks that hiccup, images that cannot be read, workers that hang."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
FIRST_PAUSE_SECONDS = 0.1
# What a network file system reports while its server restarts. Not ENOENT and EACCES: those it reports for good.
TRANSIENT = frozenset(
    {
        errno.EIO, errno.EREMOTEIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EBUSY,
        errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
        errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ENOTCONN, errno.ESHUTDOWN, errno.ENOBUFS,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Tolerance:
    """The keys of a data section that say so.

    Attributes:
        retries: how often an image is read again after an error that may pass.
        skips_bad_images: whether others take the place of images that cannot be read.
        timeout_seconds: how long one image may take while training waits for it; None: any time.
    """

    retries: int = 3
    skips_bad_images: bool = False
    timeout_seconds: float | None = 120.0


DEFAULT = Tolerance()


def retried(retries: int, read: Callable[..., T], *arguments: Any) -> T:
    """Calls a function again while it fails with what may pass, after 0.1 s, 0.2 s, 0.4 s and so on."""
    for attempt in range(retries):
        try:
            return read(*arguments)
        except Exception as error:
            if not is_transient(error):
                raise
        time.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
    return read(*arguments)


def is_transient(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised for, is the operating system's and may pass."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in TRANSIENT:
            return True
        error = error.__cause__ or error.__context__
    return False
