"""What each loader worker is at, so that one that hangs or dies can be reported with the image it was reading."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from convrun.errors import DataError
from convrun.text.wording import printable

POLL_SECONDS = 0.5
RESTING, READING, TRANSFORMING = range(3)
VERBS = {READING: "reading", TRANSFORMING: "transforming"}


class WorkerStuck(DataError):
    """A loader worker has been at one image for longer than `data.timeout`."""


class Board:
    """Shared memory in which each worker writes what it begins, and from which the main process reads it.

    Args:
        workers: how many there are; 0 stands for one that loads in the main process.
    """

    def __init__(self, workers: int) -> None:
        # Of each worker: what it is doing, the image, since when (in ns), and how much it has begun so far.
        self._rows = torch.zeros(max(workers, 1), 4, dtype=torch.int64)
        if workers:
            self._rows.share_memory_()  # type: ignore[no-untyped-call]

    def begin(self, doing: int, index: int) -> None:
        """In a worker: what it does from now on, to which image."""
        info = get_worker_info()
        row = self._rows.numpy()[info.id if info is not None else 0]
        row[:] = (doing, index, time.monotonic_ns(), row[3] + 1)

    def rest(self) -> None:
        """In a worker: nothing is left to do to a micro-batch."""
        self.begin(RESTING, -1)

    def read(self, worker: int) -> tuple[int, int, float, int]:
        """What a worker is doing, to which image, since how many seconds, and how much it has begun so far."""
        doing, index, since, count = self._rows[worker].tolist()
        return doing, index, (time.monotonic_ns() - since) / 1e9, count


class Watch:
    """Knows when a worker has hung, and says what a worker was at when it hung or died.

    Args:
        board: where the workers write.
        split: `train` or `val`, for messages.
        place: names an image.
        timeout_seconds: how long one image may take while the main process waits for it; None: any time.
    """

    def __init__(self, board: Board, split: str, place: Callable[[int], str], timeout_seconds: float | None) -> None:
        self._board, self._split, self._place, self._timeout = board, split, place, timeout_seconds
        self._waited, self._seen = 0.0, (-1, -1)

    def start(self) -> None:
        """The main process begins to wait."""
        self._waited = 0.0

    def wait(self, worker: int, seconds: float) -> None:
        """The main process has waited so long for a worker, in vain; raises WorkerStuck if that was too long."""
        doing, index, since, count = self._board.read(worker)
        if self._seen != (worker, count):
            self._waited, self._seen = 0.0, (worker, count)
        self._waited += seconds
        if self._timeout is None or self._waited < self._timeout:
            return
        if doing == RESTING:
            what = f"has delivered nothing for {self._waited:.0f} s"
        else:
            what = f"has been {VERBS[doing]} {self._name(index)} for {since:.0f} s"
        raise WorkerStuck(
            f"split {self._split}: loader worker {worker} {what}; look at the disk (dmesg, mount), or set data.timeout "
            f"to more than {self._timeout:g} seconds (null: wait for ever)"
        )

    def death(self, worker: int, exit_code: int) -> DataError:
        """The error for a worker that has ended before its time."""
        doing, index, _, _ = self._board.read(worker)
        how = f"was ended by {_signal_name(-exit_code)}" if exit_code < 0 else f"ended with exit code {exit_code}"
        when = "between two micro-batches" if doing == RESTING else f"while {VERBS[doing]} {self._name(index)}"
        return DataError(
            f"split {self._split}: loader worker {worker} {how} {when}; if memory ran out, lower data.workers or "
            "data.prefetch; if shared memory ran out, enlarge /dev/shm (docker run --shm-size); data.workers=0 needs "
            "neither"
        )

    def _name(self, index: int) -> str:
        return printable(self._place(index))


class _Impatient(_MultiProcessingDataLoaderIter):
    """Torch's iterator, which finds a worker's death within POLL_SECONDS and tells the watch how long it waits.

    Torch's own timeout would not do: with it, a death is noticed when it has passed, and slow is taken for stuck.
    """

    _is_whole = False

    def __init__(self, loader: WatchedLoader) -> None:
        self._watch = loader.watch
        super().__init__(loader)
        self._is_whole = True

    def _shutdown_workers(self) -> None:
        """Torch's own misses what `__init__` makes last, where a second Ctrl-C has cut that short."""
        if self._is_whole:
            super()._shutdown_workers()
            return
        for worker in getattr(self, "_workers", []):
            worker.kill()
            worker.join()
        if getattr(self, "_worker_pids_set", False):
            torch._C._remove_worker_pids(id(self))
            self._worker_pids_set = False

    def _try_get_data(self, timeout: float = 0.0) -> Any:
        started = time.monotonic()
        found = super()._try_get_data(POLL_SECONDS)  # type: ignore[no-untyped-call]
        if not found[0]:
            # A process that was stopped (SIGSTOP, a laptop's lid) finds hours gone by that nobody waited.
            seconds = min(time.monotonic() - started, 2 * POLL_SECONDS)
            self._watch.wait(self._rcvd_idx % self._num_workers, seconds)
        return found


class WatchedLoader(DataLoader[Any]):
    """A DataLoader whose workers are watched."""

    def __init__(self, watch: Watch, *arguments: Any, **keys: Any) -> None:
        self.watch = watch
        super().__init__(*arguments, **keys)

    def _get_iterator(self) -> Any:
        return _Impatient(self) if self.num_workers else super()._get_iterator()


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
