"""Requests to stop a run: by a signal, or by the time that the recipe allows. The exit code tells them apart.

Once training has begun, the current step is finished and the state saved. Before that there is nothing to save, and a
signal stops at once.

`convrun run` imports this module before anything else, so it imports little itself.
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

# By then the destructor that swallowed the exception has returned.
AGAIN_SECONDS = 0.01
# What clusters send to a job that is to end, and `convrun cancel`.
SCHEDULER_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# SIGHUP: the terminal was closed; SIGINT: Ctrl-C.
STOPPING = (*SCHEDULER_SIGNALS, signal.SIGHUP, signal.SIGINT)


class StopNow(KeyboardInterrupt):
    """Stops at once. A KeyboardInterrupt, since no `except Exception` on the way catches it.

    Not KeyboardInterrupt itself: once one has left an `exec`, as dataclasses use it, `python -m` ends with a death by
    SIGINT, whatever exit code is asked for (CPython's `unhandled_keyboard_interrupt` knows no subclass).
    """


class StopRequest:
    """Listens while it is entered; its clock starts when it is made.

    Attributes:
        signal: the one that has come, if any.
        run_has_begun: from `begin` on, a signal is recorded and the loop asks `is_set`; before, it raises StopNow.
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
        """Whether a signal has come, or the time is up."""
        return self.signal is not None or self.is_time_over

    @property
    def is_time_over(self) -> bool:
        """Whether the time that the recipe allows is up."""
        return self.stop_after_seconds is not None and time.monotonic() - self._since >= self.stop_after_seconds

    def error(self, message: str) -> ConvrunError:
        """What to raise once the state is saved: Interrupted (130) after Ctrl-C, else Preempted (75)."""
        if self.signal is None and self.stop_after_seconds is not None:
            from convrun.text.units import duration_text

            message = f"training.stop_after: {duration_text(self.stop_after_seconds)} have passed; {message}"
        return Interrupted(message) if self.signal == signal.SIGINT else Preempted(message)

    def check(self) -> None:
        """Raises StopNow if a signal has come: a library may have swallowed the first one during its import."""
        if self.signal is not None:
            raise StopNow

    def begin(self) -> None:
        """From now on a signal lets the step finish and the state be saved; raises StopNow if one has come before."""
        self.check()
        self.run_has_begun = True

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            # Ignored signals stay ignored: `nohup`, and a shell's `&`, rely on it.
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
        """What to raise in place of an error, if a signal came and the run had not begun.

        It replaces every error: a library whose import was interrupted may stay half initialized, and fail elsewhere.
        A SystemExit stays: its message has been printed.
        """
        if error is None or isinstance(error, SystemExit) or self.signal is None or self.run_has_begun:
            return None
        return self.error(
            f"stopped by {self.signal.name} before training began; nothing was changed, start again the same way"
        )

    def _note(self, number: int, _frame: FrameType | None) -> None:
        is_first = self.signal is None
        is_second_ctrl_c = number == signal.SIGINT and self.signal == signal.SIGINT
        # Ctrl-C has precedence: a SIGTERM after it does not make the run count as preempted.
        if self.signal != signal.SIGINT:
            self.signal = signal.Signals(number)
        lost, self._again = self._again, None
        if lost is not None:
            lost.cancel()  # another signal may have been faster
        if lost is not None or is_second_ctrl_c or (is_first and not self.run_has_begun):
            raise StopNow

    def _send_again(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Python drops a StopNow that is raised in a destructor: the signal is sent again."""
        if not isinstance(unraisable.exc_value, StopNow) or self.signal is None:
            self._unraisable_before(unraisable)
            return
        main = threading.main_thread().ident or 0
        self._again = threading.Timer(AGAIN_SECONDS, signal.pthread_kill, [main, self.signal])
        self._again.start()


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Blocks signals for a whole command, except where a StopRequest unblocks them; at the end they are ignored.

    Without it a signal during the imports would end Python without a message, and one during the shutdown would change
    the exit code. Python's own start-up, before this, cannot be protected. Child processes inherit the blocked signals.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)  # discards the pending ones
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def let_through() -> None:
    """Unblocks signals until the surrounding StopRequest ends; pending ones arrive at once."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
