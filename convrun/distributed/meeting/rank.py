"""One rank of a run of several, from meeting the others to ending together with them."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from torch.distributed import DistError

from convrun.distributed.failing.boards import Board, FolderBoard, StoreBoard
from convrun.distributed.failing.failure import Failure
from convrun.distributed.failing.watch import GRACE_SECONDS, Watch
from convrun.distributed.group import Group
from convrun.distributed.meeting.rank_log import Terminal
from convrun.distributed.meeting.rendezvous import Meeting, another_connection, connect, meet, ranks_text
from convrun.errors import ConvrunError, Interrupted, Preempted
from convrun.process.device import device_identity
from convrun.process.signals import STOPPING, StopRequest, let_through
from convrun.process.threads import share_cores
from convrun.process.world import World

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

# Rank 0 serves the store: it waits for the others to have read from it how the run ended, but not for ever.
PARTING_SECONDS = 10.0
LAST_WORD_SECONDS = 3.0  # the same after a failure: some may be gone already
# The others wait for rank 0 to write its last files.
FIRST_RANK_SECONDS = 1800.0
POLL_SECONDS = 0.05
# What torch's messages hold where a collective failed because another process is gone.
OF_A_COLLECTIVE = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "tcpstore")


class Rank:
    """One rank of a run: this process among the others.

    Args:
        world: its place.
        choose_device: says what this process trains on: `cuda` or `cpu`.
        stop: listens for signals.
        debug: whether the user wants tracebacks of foreseen errors too.
    """

    def __init__(
        self,
        world: World,
        choose_device: Callable[[], Literal["cpu", "cuda"]],
        stop: StopRequest,
        debug: bool = False,
    ) -> None:
        self.world, self.choose_device, self.stop, self.debug = world, choose_device, stop, debug
        self.terminal, self._nowhere = Terminal(), os.open(os.devnull, os.O_WRONLY)
        self.group = Group()
        self.store: Store | None = None
        self.watch: Watch | None = None
        self.cause: tuple[Failure, bool] | None = None

    def run(self, job: Callable[[Group], None]) -> None:
        """Does this process's share of a run. If the run fails, here or elsewhere, the process ends in here.

        Raises:
            ConvrunError: all processes ended so together (`is_agreed`); raised in rank 0, for the user.
            SystemExit: the same in the other ranks.
        """
        try:
            let_through()  # from here on one process can tell the user, and the others keep silent
            self.store = connect(self.world)
            device = self.choose_device()
            share_cores(self.world)
            meeting = meet(self.world, self.store, device, device_identity(device))
            with self._watching(meeting):
                self.group = Group(self.world, meeting, device)
                self.group.cause_of = self._cause_of
                end = _orderly_end(job, self.group)
                if end is not None and self.world.board and self.world.rank == 0:
                    FolderBoard(Path(self.world.board)).note_agreed_end()  # before any process ends with this error
                self._part(self.store)
            self.group.close()
        except BaseException as error:
            self._fail(error)
        if end is not None:
            raise end if self.world.rank == 0 else SystemExit(end.exit_code)

    def _watching(self, meeting: Meeting) -> Watch:
        store = another_connection(meeting.store)
        board = self._board(store)
        assert board is not None
        self.watch = Watch(meeting, store, board, self._before_exit)
        return self.watch

    def _board(self, store: Store | None) -> Board | None:
        """None: there is no way to tell the others anything."""
        if self.world.board:
            return FolderBoard(Path(self.world.board))
        return StoreBoard(store, self.world.rank) if store is not None else None

    def _before_exit(self, failure: Failure, is_ours: bool) -> None:
        with contextlib.suppress(OSError, ConvrunError):
            self.group.on_failure(failure)
        self._tell(failure, is_ours)

    def _tell(self, failure: Failure, is_ours: bool) -> None:
        # The parent of convrun's own processes reads the board and tells the user; unless a disk was full.
        if is_ours and (self.world.board is None or FolderBoard(Path(self.world.board)).read() is None):
            is_stop = failure.exit_code in (Preempted.exit_code, Interrupted.exit_code)
            self.terminal.say(f"{'' if is_stop else 'error: '}{failure.text(self.debug)}")

    def _part(self, store: Store) -> None:
        """Ends after rank 0 has done all it has to: a launcher would end it when the first process has gone."""
        if self.world.rank == 0:
            store.set("over", "")
            self._outlast(store, PARTING_SECONDS)
            return
        end = time.monotonic() + FIRST_RANK_SECONDS
        while not store.check(["over"]):
            if time.monotonic() > end:
                raise ConvrunError(f"rank 0 did not come to an end within {FIRST_RANK_SECONDS:g} s of this one")
            time.sleep(POLL_SECONDS)
        store.add("gone", 1)

    def _outlast(self, store: Store, seconds: float) -> None:
        """Rank 0 waits until the others know how the run ended: with it goes the store that tells them."""
        end = time.monotonic() + seconds
        while store.add("gone", 0) < self.world.size - 1 and time.monotonic() < end:
            time.sleep(POLL_SECONDS)

    def _fail(self, error: BaseException) -> NoReturn:
        """Leaves word, tells the user if this was the first process to fail, and ends this one."""
        for number in STOPPING:  # a launcher ends the others as soon as one has gone; the user is to know why first
            signal.signal(number, signal.SIG_IGN)
        failure, is_ours = self.cause or self._first_failure(error)
        self._tell(failure, is_ours)
        if self.terminal.is_replaced:  # the log of this rank holds its own error too
            with contextlib.suppress(OSError):
                sys.stderr.write(Failure.of(error, self.world).traceback)
        if self.store is not None and self.world.board is None:
            with contextlib.suppress(DistError):
                if self.world.serves_store:
                    self._outlast(self.store, LAST_WORD_SECONDS)
                else:
                    self.store.add("gone", 1)
        if self.watch is not None:
            self.watch.stop()
        # Nothing may keep it from its end now; the exit handlers, the loader workers' among them, get some seconds.
        faulthandler.dump_traceback_later(PARTING_SECONDS, exit=True, file=self._nowhere)
        raise SystemExit(failure.exit_code)

    def _cause_of(self, error: BaseException) -> Failure:
        self.cause = self.cause or self._first_failure(error)
        return self.cause[0]

    def _first_failure(self, error: BaseException) -> tuple[Failure, bool]:
        """What ended the run, and whether this process is the one to say so."""
        if self.watch is not None:
            self.watch.leave_to_main_thread()
            if self.watch.found is not None:
                return self.watch.found
        failure = Failure.of(self.stop.error_before_training(error) or error, self.world)
        try:
            board = self._board(self.store)
            if board is None:
                speaks = self.world.speaks_for_its_node and not failure.is_everyones
                return failure, self.world.rank == 0 or speaks
            if self.watch is not None and _is_of_a_collective(error):
                failure = self._gone_without_a_word(board, self.watch) or failure
            is_ours = board.claim(failure)
            return (failure if is_ours else board.read() or failure), is_ours
        except DistError:
            if self.watch is not None and _is_of_a_collective(error):
                return self.watch.store_lost()
            return failure, self.world.speaks_for_its_node

    def _gone_without_a_word(self, board: Board, watch: Watch) -> Failure | None:
        """What made a collective fail, unless a process leaves word: those that give no sign of life any more."""
        before, end = self._beats(), time.monotonic() + GRACE_SECONDS
        while time.monotonic() < end:
            if board.read():
                return None
            time.sleep(POLL_SECONDS)
        after = self._beats()
        gone = [rank for rank, beat in enumerate(after) if beat == before[rank] and rank != self.world.rank]
        if not gone:
            return None
        others = f" (and {ranks_text(gone[1:])})" if gone[1:] else ""
        return Failure(gone[0], watch.hosts[gone[0]], f"has gone without a word{others}; it was killed, or crashed")

    def _beats(self) -> list[bytes]:
        assert self.store is not None
        keys = [f"beat/{rank}" for rank in range(self.world.size)]
        return [self.store.get(key) if self.store.check([key]) else b"" for key in keys]


def _orderly_end(job: Callable[[Group], None], group: Group) -> ConvrunError | None:
    """How the run ended, where all processes know: done, or stopped at the same step."""
    try:
        job(group)
    except ConvrunError as error:
        # A second Ctrl-C: the others know nothing of it.
        if not error.is_agreed or isinstance(error.__cause__, KeyboardInterrupt):
            raise
        return error
    return None


def _is_of_a_collective(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and (
        isinstance(error, DistError) or any(word in str(error).lower() for word in OF_A_COLLECTIVE)
    )
