"""Writes in the background: one thread per checkpoint, one checkpoint at a time.

Loader workers may be forked while a write is in flight (an evaluation starts some). Only the thread that forks goes on
in the worker, and a lock that another thread held stays locked there for ever. So the writing thread

- takes no lock that a worker would need: it logs nothing, prints nothing, shares no file object with the main thread;
- imports nothing, because a half-imported module would block the worker's import of the same module (`__init__` runs
  torch's serialisation once, which imports what it needs);
- writes through a file without a buffer, so that the worker inherits no bytes that it could write a second time.

Python's own locks (interpreter, import, logging) and those of the C library (malloc, stdio) are reset by their own fork
handlers. Between two writes this thread does not exist.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

import torch


class BackgroundWriter:
    """Runs one piece of work at a time beside the main thread."""

    def __init__(self) -> None:
        # Not `join`, which after a Ctrl-C takes a thread that is still running for one that has ended (Python 3.11).
        self._ended: threading.Event | None = None
        self._error: BaseException | None = None
        torch.save({"warm": torch.zeros(1)}, io.BytesIO())

    @property
    def is_in_flight(self) -> bool:
        """Whether a write was started and has not been waited for."""
        return self._ended is not None

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self._ended is not None and self._ended.is_set()

    def start(self, work: Callable[[], None]) -> None:
        """Starts a piece of work once the previous one has ended."""
        self.wait()
        self._ended = threading.Event()
        # A daemon, so that a disk that hangs does not keep the process from ending; the next start removes the draft.
        threading.Thread(target=self._run, args=(work, self._ended), name="checkpoint", daemon=True).start()

    def _run(self, work: Callable[[], None], ended: threading.Event) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error
        finally:
            ended.set()

    def wait(self) -> None:
        """Waits for the work in flight; raises what it raised."""
        if self._ended is not None:
            self._ended.wait()
            self._ended = None
        error, self._error = self._error, None
        if error is not None:
            raise error
