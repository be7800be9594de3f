"""A stop that all ranks obey after the same step, whichever of them was asked."""

from __future__ import annotations

import signal
from typing import Any

from convrun.distributed.group import Group
from convrun.process.signals import StopRequest

# What a rank votes; the largest counts. A signal weighs more than the time, Ctrl-C more than any other signal.
NOTHING, TIME_IS_OVER, CTRL_C = 0, 1, 1000


class AgreedStop:
    """Asked by all ranks after each step, and wherever else all may stop: the same answer for all.

    Each call takes up the votes of the call before and sends off new ones. So they travel while the step is computed,
    nothing waits for them or for a device, and the run stops one step later than one rank alone would.

    Args:
        stop: what this rank has heard; is told what was agreed.
        group: all ranks.
    """

    def __init__(self, stop: StopRequest, group: Group) -> None:
        self._stop, self._group = stop, group
        self._votes: Any = None
        self._sending: Any = None
        self._is_agreed = False

    def __call__(self) -> bool:
        """Whether to stop now; collective."""
        if self._group.size == 1:
            return self._stop.is_set
        if not self._is_agreed:
            self._count()
        return self._is_agreed

    def _count(self) -> None:
        import torch

        if self._sending is not None:
            self._sending.wait()
            self._agree(int(self._votes))
        self._votes = torch.tensor(_vote_of(self._stop))
        self._sending = self._group.start_largest(self._votes)

    def _agree(self, vote: int) -> None:
        self._is_agreed = vote != NOTHING
        if self._is_agreed:
            self._stop.signal = _signal_of(vote)


def _vote_of(stop: StopRequest) -> int:
    if stop.signal is None:
        return TIME_IS_OVER if stop.is_time_over else NOTHING
    return CTRL_C if stop.signal == signal.SIGINT else TIME_IS_OVER + int(stop.signal)


def _signal_of(vote: int) -> signal.Signals | None:
    if vote == TIME_IS_OVER:
        return None
    return signal.SIGINT if vote == CTRL_C else signal.Signals(vote - TIME_IS_OVER)
