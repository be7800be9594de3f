"""Writing in the background: one thread for one checkpoint, one checkpoint at a time.

Loader workers are forked while a write may be in flight (an evaluation starts some). In such a child only the thread
that forked goes on, and a lock that another thread held stays locked for ever. So the writing thread

- takes no lock that a worker would need: it logs nothing, prints nothing, shares no file object with the main thread;
- imports nothing, for a module that it was in the midst of importing would block the child's import of the same one
  (`__init__` runs torch's serialisation once, which imports what it needs);
- writes through a file without a buffer, so the child holds no bytes that it could write a second time.

Python's own locks (interpreter, import, logging) and those of the C library (malloc, stdio) are made whole by their own
fork handlers. Between two writes this thread is not there.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

import torch


class BackgroundWriter:
    """Runs one piece of work at a time beside the main thread."""

    def __init__(self) -> None:
        # No `join`: interrupted by Ctrl-C it takes a thread that runs still for one that has ended (Python 3.11).
        self._ended: threading.Event | None = None
        self._error: BaseException | None = None
        torch.save({"warm": torch.zeros(1)}, io.BytesIO())

    @property
    def is_in_flight(self) -> bool:
        """Whether something was started whose end nobody has looked at."""
        return self._ended is not None

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self._ended is not None and self._ended.is_set()

    def start(self, work: Callable[[], None]) -> None:
        """Begins a piece of work, after the one before."""
        self.wait()
        self._ended = threading.Event()
        # A daemon: a user who cannot wait for a disk that hangs gets out; the draft it leaves is removed at the next
        # start.
        threading.Thread(target=self._run, args=(work, self._ended), name="checkpoint", daemon=True).start()

    def _run(self, work: Callable[[], None], ended: threading.Event) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error
        finally:
            ended.set()

    def wait(self) -> None:
        """Waits for what is in flight; raises what it raised."""
        if self._ended is not None:
            self._ended.wait()
            self._ended = None
        error, self._error = self._error, None
        if error is not None:
            raise error
