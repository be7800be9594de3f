"""Somebody asks a run to stop, by a signal or by the time that the recipe allows; the exit code tells who.

Once the run has begun, the step is finished and the state saved. Before that there is nothing to save: a signal stops
at once.

`convrun.entry` imports this module as the first thing `convrun run` does, so it imports next to nothing itself.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from convrun.errors import ConvrunError, Interrupted, Preempted

# Destructors and the like are over by then.
AGAIN_SECONDS = 0.01
# SIGHUP: the terminal was closed.
STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT)


class StopNow(KeyboardInterrupt):
    """Stops at once; a KeyboardInterrupt, because no `except Exception` on the way takes it for an error of its own.

    Not KeyboardInterrupt itself: once one has left an `exec`, as dataclasses use it, `python -m` ends with a death by
    SIGINT, whatever exit code is asked for (CPython's `unhandled_keyboard_interrupt` knows no subclass).
    """


class StopRequest:
    """Listens while it is entered; its clock starts when it is made.

    Attributes:
        signal: the one that has come.
        run_has_begun: from `begin` on a signal is noted and the loop asks `is_set`; before, it raises StopNow.
        stop_after_seconds: how long the process may train, if the recipe says.

    A second Ctrl-C never waits: it stops at once.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.run_has_begun = False
        self.stop_after_seconds: float | None = None
        self._since = time.monotonic()
        self._before: dict[signal.Signals, Any] = {}
        self._mask: set[int] = set()
        self._unraisable_before: Any = None
        self._again: threading.Timer | None = None  # sends a signal once more

    @property
    def is_set(self) -> bool:
        """Whether a signal has come, or the time is over."""
        return self.signal is not None or self.is_time_over

    @property
    def is_time_over(self) -> bool:
        """Whether the process has had the time that the recipe allows."""
        return self.stop_after_seconds is not None and time.monotonic() - self._since >= self.stop_after_seconds

    def error(self, message: str) -> ConvrunError:
        """What to raise once the state is saved: Interrupted (130) after Ctrl-C, else Preempted (75)."""
        if self.signal is None and self.stop_after_seconds is not None:
            from convrun.text.units import duration_text

            message = f"training.stop_after: {duration_text(self.stop_after_seconds)} are over; {message}"
        return Interrupted(message) if self.signal == signal.SIGINT else Preempted(message)

    def check(self) -> None:
        """Raises StopNow if a signal has come: a library may have taken the first one for an error in its import."""
        if self.signal is not None:
            raise StopNow

    def begin(self) -> None:
        """The run is about to write, and from now on ends in good order; raises StopNow if a signal has come before."""
        self.check()
        self.run_has_begun = True

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            # What is ignored stays so: `nohup`, and a shell's `&`, rely on it.
            heard = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}
            self._unraisable_before, sys.unraisablehook = sys.unraisablehook, self._send_again
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._unraisable_before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)  # `let_through` holds no longer
            sys.unraisablehook, self._unraisable_before = self._unraisable_before, None
        if self._again is not None:
            self._again.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if instead := self.error_before_training(error):
            raise instead from error

    def error_before_training(self, error: BaseException | None) -> ConvrunError | None:
        """What to raise in the place of an error, if a signal came and the run had not begun.

        Whatever the error: a library that was interrupted in its import may go on half made, and break elsewhere. But
        who asks for an exit has said why.
        """
        if error is None or isinstance(error, SystemExit) or self.signal is None or self.run_has_begun:
            return None
        return self.error(
            f"stopped by {self.signal.name} before training began; nothing was changed, start again the same way"
        )

    def _note(self, number: int, _frame: FrameType | None) -> None:
        is_first = self.signal is None
        is_second_ctrl_c = number == signal.SIGINT and self.signal == signal.SIGINT
        # The user's word stands: a SIGTERM after Ctrl-C makes no preemption of it.
        if self.signal != signal.SIGINT:
            self.signal = signal.Signals(number)
        lost, self._again = self._again, None
        if lost is not None:
            lost.cancel()  # another signal may have been faster
        if lost is not None or is_second_ctrl_c or (is_first and not self.run_has_begun):
            raise StopNow

    def _send_again(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Where nobody can raise anything, in a destructor for one, Python drops StopNow: it must come once more."""
        if not isinstance(unraisable.exc_value, StopNow) or self.signal is None:
            self._unraisable_before(unraisable)
            return
        main = threading.main_thread().ident or 0
        self._again = threading.Timer(AGAIN_SECONDS, signal.pthread_kill, [main, self.signal])
        self._again.start()


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """For a whole command: signals wait, but where a StopRequest lets them through; at its end they are ignored.

    Without it one that comes while the command line is imported ends Python without a word, and one that comes while
    Python shuts down changes the exit code. Nothing can be done about Python's own start before. What is started
    inside inherits that signals wait.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)  # those that wait are gone with it
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def let_through() -> None:
    """Until the StopRequest around it ends, signals come, those that have waited at once."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
