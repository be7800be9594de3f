"""Signals that ask a run to stop: the step is finished, the state saved, and the exit code tells why."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from convrun.errors import ConvrunError, Interrupted, Preempted

# SIGHUP: the terminal was closed.
STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT)


class StopRequest:
    """Listens while it is entered. A second Ctrl-C does not wait for the step: it stops at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def is_set(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None

    def error(self, message: str) -> ConvrunError:
        """What to raise once the state is saved: Interrupted (130) after Ctrl-C, else Preempted (75)."""
        return Interrupted(message) if self.signal == signal.SIGINT else Preempted(message)

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in STOPPING}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        # The user's word stands: a SIGTERM after Ctrl-C makes no preemption of it.
        if self.signal != signal.SIGINT:
            self.signal = signal.Signals(number)
