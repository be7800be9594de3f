"""A thread in each process that ends it when the run has failed elsewhere.

A process that waits for others in a collective cannot be interrupted: neither gloo nor NCCL lets go. So once another
process has left word of a failure, its own main thread gets some seconds to come to an end, then the process exits,
whatever it is doing. Nothing is saved then: the last checkpoint stands.

Each process also gives a sign of life every second, and looks after the next rank's, so that one which is gone or
hangs without a word is found whatever the network says.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch.distributed import DistError

from convrun.distributed.failure import Failure

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

    from convrun.distributed.boards import Board
    from convrun.distributed.rendezvous import Meeting

BEAT_SECONDS = 1.0
SILENCE_SECONDS = 60.0
# How long the main thread may go on after a failure elsewhere: it may be about to end by itself.
GRACE_SECONDS = 3.0


class Watch:
    """Looks for failures of other processes while it is entered.

    Args:
        meeting: where the processes met.
        store: a connection of the thread's own.
        board: where failures are told; on the same connection.
        before_exit: called before the process is ended from here, with the failure and whether this process is the
            one to tell the user.
        silence: seconds without a sign of life after which a process counts as gone; SILENCE_SECONDS.

    Attributes:
        found: the failure that the thread is about to end this process for, and whether this process tells the user.
    """

    def __init__(
        self,
        meeting: Meeting,
        store: Store,
        board: Board,
        before_exit: Callable[[Failure, bool], None],
        silence: float | None = None,
    ) -> None:
        self.world, self.hosts = meeting.world, meeting.hosts
        self.silence = SILENCE_SECONDS if silence is None else silence
        self.found: tuple[Failure, bool] | None = None
        self._store, self._board, self._before_exit = store, board, before_exit
        self._parent = os.getppid() if self.world.launcher == "convrun" else None
        self._is_over, self._main_is_ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self._beats, self._last, self._seen = 0, b"", time.monotonic()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Ends the thread, but after an error."""
        self.leave_to_main_thread()
        if kind is None:
            self._is_over.set()
            self._thread.join(GRACE_SECONDS)  # it may wait for a store that is gone

    def leave_to_main_thread(self) -> None:
        """From now on only signs of life: the main thread has an error, and finds out what happened."""
        self._main_is_ending.set()

    def _look(self) -> None:
        while not self._is_over.wait(BEAT_SECONDS / 2):
            try:
                self._beat()
                if self._main_is_ending.is_set():
                    continue
                failure, is_ours = self._failure()
            except DistError:
                if self._main_is_ending.is_set():
                    return
                failure, is_ours = self.store_lost()
            if failure is not None:
                self._end(failure, is_ours)
                return

    def _failure(self) -> tuple[Failure | None, bool]:
        """What has ended the run elsewhere, if anything has, and whether it is this process that tells the user."""
        if self._parent is not None and os.getppid() != self._parent:
            message = "lost the convrun process that started it; it was killed"
            failure: Failure | None = Failure(self.world.rank, self.world.host, message)
        elif failure := self._board.read():
            return failure, False
        else:
            failure = self._silent_neighbour()
        if failure is None:
            return None, False
        is_ours = self._board.claim(failure)
        return (failure if is_ours else self._board.read()), is_ours

    def _beat(self) -> None:
        self._beats += 1
        self._store.set(f"beat/{self.world.rank}", str(self._beats))

    def _silent_neighbour(self) -> Failure | None:
        neighbour = (self.world.rank + 1) % self.world.size
        key, now = f"beat/{neighbour}", time.monotonic()
        beat = self._store.get(key) if self._store.check([key]) else b""
        if beat != self._last:
            self._last, self._seen = beat, now
        if now - self._seen < self.silence:
            return None
        message = f"does not answer: no sign of life for {self.silence:g} s"
        return Failure(neighbour, self.hosts[neighbour], message)

    def store_lost(self) -> tuple[Failure, bool]:
        """The process that serves the store is gone. The others cannot agree on who says so: one on each node does."""
        server = "the store that torchrun serves" if self.world.is_store_given else f"rank 0 on {self.hosts[0]}"
        message = f"lost contact with {server}; look at the output of that process"
        return Failure(self.world.rank, self.world.host, message), self.world.speaks_for_its_node

    def _end(self, failure: Failure, is_ours: bool) -> None:
        self.found = failure, is_ours
        if self._main_is_ending.wait(GRACE_SECONDS):
            return
        try:
            self._before_exit(failure, is_ours)
            with contextlib.suppress(DistError):
                self._store.add("gone", 1)
        finally:
            exit_now(failure.exit_code)


def exit_now(code: int) -> None:
    """Ends the process and its loader workers, whatever its threads wait for."""
    for child in multiprocessing.active_children():
        child.kill()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)
