"""A thread in each process that ends it when the run has failed elsewhere.

A process that waits for others in a collective cannot be interrupted: neither gloo nor NCCL lets go. So once another
process has left word of a failure, its own main thread gets some seconds to come to an end, then the process exits,
whatever it is doing. Nothing is saved then: the last checkpoint stands.

Each process also gives a sign of life twice a second, and looks after the next rank's, so that one which is gone or
hangs without a word is found whatever the network says. If it is the store that hangs, with the process that serves it,
looking takes for ever: a second thread finds that.

Silence is counted in looks and not by the clock. When Slurm suspends a job, all its processes stand still together, and
afterwards none of them may blame another.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch.distributed import DistError

from convrun.distributed.failing.failure import Failure

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

    from convrun.distributed.failing.boards import Board
    from convrun.distributed.meeting.rendezvous import Meeting

BEAT_SECONDS = 0.5
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
        self._is_over, self._main_is_ending = threading.Event(), threading.Event()
        threads = {"watch": self._look, "watch of the store": self._look_after_looks}
        self._threads = [threading.Thread(target=does, name=name, daemon=True) for name, does in threads.items()]
        self._beats, self._last, self._silent_looks = 0, b"", 0

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Ends the threads; after an error they give signs of life until `stop`."""
        self.leave_to_main_thread()
        if kind is None:
            self.stop()

    def stop(self) -> None:
        """Ends the threads: one that Python's end surprises in the midst of a call to the store makes it an abort."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(GRACE_SECONDS)  # it may wait for a store that is gone

    def leave_to_main_thread(self) -> None:
        """From now on only signs of life: the main thread has an error, and finds out what happened."""
        self._main_is_ending.set()

    def _look(self) -> None:
        while not self._is_over.wait(BEAT_SECONDS):
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
        if self.world.parent is not None and os.getppid() != self.world.parent:
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
        key = f"beat/{neighbour}"
        beat = self._store.get(key) if self._store.check([key]) else b""
        self._silent_looks = self._silent_looks + 1 if beat == self._last else 0
        self._last = beat
        return self._silent(neighbour) if self._is_too_long(self._silent_looks) else None

    def _is_too_long(self, silent_looks: int) -> bool:
        return silent_looks * BEAT_SECONDS >= self.silence

    def _silent(self, rank: int) -> Failure:
        return Failure(rank, self.hosts[rank], f"does not answer: no sign of life for {self.silence:g} s")

    def _look_after_looks(self) -> None:
        """Ends this process, whatever its main thread does, when a look has lasted too long: no store, no way out."""
        beats, waits = self._beats, 0
        while not self._is_over.wait(BEAT_SECONDS):
            waits = waits + 1 if self._beats == beats else 0
            beats = self._beats
            if self._is_too_long(waits) and self.found is None and self._threads[0].is_alive():
                hangs = self._lost() if self.world.is_store_given else self._silent(0)
                failure, is_ours = self._without_the_store(hangs)
                try:
                    self._before_exit(failure, is_ours)
                finally:
                    exit_now(failure.exit_code)

    def store_lost(self) -> tuple[Failure, bool]:
        """The process that serves the store is gone: what to tell, and whether it is this process that does."""
        return self._without_the_store(self._lost())

    def _lost(self) -> Failure:
        server = "the store that torchrun serves" if self.world.is_store_given else f"rank 0 on {self.hosts[0]}"
        message = f"lost contact with {server}; look at the output of that process"
        return Failure(self.world.rank, self.world.host, message)

    def _without_the_store(self, failure: Failure) -> tuple[Failure, bool]:
        """Where words are left in a folder, the first counts. Else nobody can agree on who tells: one a node does."""
        if self.world.board is None:
            return failure, self.world.speaks_for_its_node
        is_ours = self._board.claim(failure)
        return (failure if is_ours else self._board.read() or failure), is_ours

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
        with contextlib.suppress(AttributeError, OSError):  # there is none, or its disk is full
            stream.flush()
    os._exit(code)
