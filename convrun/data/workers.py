"""Loader processes that the run can rely on: clean errors, no share in the run's signals, a prompt end.

A thin layer over torch's DataLoader, for one pass over a list of positions.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing.connection
import multiprocessing.process
import multiprocessing.util  # (first, so that our atexit hook runs before its wait for children)
import os
import signal
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch

from convrun.data.skipped import SkippedImage
from convrun.data.watchdog import Watch, WatchedLoader, WorkerStuck
from convrun.errors import ConvrunError, DataError
from convrun.process.signals import STOPPING

T = TypeVar("T")
# They reach every process of a group or a Slurm step, but what happens then is for the trainer to decide.
IGNORED_SIGNALS = STOPPING
GRACE_SECONDS = 2.0
DEATH_SECONDS = 5.0


class Positions(Sized, Protocol):
    """What to fetch, in order; `fetch` is called with each."""

    def __iter__(self) -> Iterator[Any]: ...


class Fetched(NamedTuple, Generic[T]):
    """What comes out of a worker: a batch, and the images that were left out of it because they cannot be read."""

    batch: T
    skipped: tuple[SkippedImage, ...]


@dataclass(frozen=True)
class Failure:
    """An exception on its way from a worker: plain text, because not every exception survives pickling."""

    message: str
    traceback: str = ""

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """The failure that stands for an exception."""
        if isinstance(error, ConvrunError) and error.__cause__ is None:
            return cls(str(error))
        message = str(error) if isinstance(error, ConvrunError) else f"{type(error).__name__}: {error}"
        return cls(message, traceback.format_exc())

    def error(self) -> DataError:
        """The exception to raise; the traceback of a bug hangs on as a note, which `--debug` shows."""
        error = DataError(self.message)
        if self.traceback:
            error.add_note(self.traceback)
        return error


class _Guarded(Generic[T]):
    """Fetches by position, and returns what went wrong: torch would wrap an exception in the worker's traceback."""

    def __init__(self, fetch: Callable[[Any], Fetched[T]]) -> None:
        self._fetch = fetch

    def __getitem__(self, position: Any) -> Fetched[T] | Failure:
        try:
            return self._fetch(position)
        except Exception as error:
            return Failure.of(error)


class Loader(Generic[T]):
    """The results of `fetch`, in the order of the positions, made by worker processes (by this one if `workers` is 0).

    Args:
        fetch: pickles; makes a named tuple with tensors of one position.
        positions: what to fetch.
        watch: knows when a worker hangs.
        on_skipped: called here, before the result is handed out, with the images that it does without.
        workers: the number of processes; they start with the first result and stay until the last.
        prefetch: results each worker keeps ready.
        pin_memory: copy results to page-locked memory, from where a GPU fetches them.

    Attributes:
        is_closed: nothing comes any more.
    """

    def __init__(
        self,
        fetch: Callable[[Any], Fetched[T]],
        positions: Positions,
        *,
        watch: Watch,
        on_skipped: Callable[[Iterable[SkippedImage]], None],
        workers: int,
        prefetch: int,
        pin_memory: bool,
    ) -> None:
        self._watch, self._on_skipped = watch, on_skipped
        self.is_closed = False
        self._iterator: Any = None
        self._loader = WatchedLoader(
            watch,
            _Guarded(fetch),  # no Dataset by name, but __getitem__ is all torch uses
            batch_size=None,
            sampler=positions,
            num_workers=workers,
            prefetch_factor=prefetch if workers else None,
            collate_fn=_unchanged,  # fetch stacks; a worker copies the result once more, into shared memory
            pin_memory=pin_memory,  # a thread of this process copies it, so that the copy to the GPU need not wait
            worker_init_fn=_ignore_signals,
            generator=torch.Generator(),  # its own, or torch would draw the workers' seed from the global one
        )

    def __iter__(self) -> Loader[T]:
        return self

    def __next__(self) -> T:
        try:
            result = self._next()
            if result.skipped:
                self._on_skipped(result.skipped)
        except WorkerStuck:
            self._abandon()
            raise
        except BaseException:
            self.close()
            raise
        return result.batch

    def _next(self) -> Fetched[T]:
        if self._iterator is None:
            if self.is_closed:
                raise StopIteration
            self._iterator = self._start()
        self._watch.start()
        try:
            # Waits for the worker whose turn it is; its shared memory is mapped here, not copied.
            result: Fetched[T] | Failure = next(self._iterator)
        except (RuntimeError, OSError, EOFError) as error:
            raise self._explained(error) from None
        if isinstance(result, Failure):
            raise result.error()
        return result

    def _start(self) -> Any:
        _open_loaders.add(self)
        on_child_exit = signal.getsignal(signal.SIGCHLD)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED_SIGNALS)  # until the workers ignore them themselves
        try:
            return iter(self._loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            # torch's SIGCHLD handler raises wherever the main thread happens to be, in the midst of a training step.
            # Without it a worker's death is found at the next wait for data, within five seconds.
            if threading.current_thread() is threading.main_thread() and on_child_exit is not None:
                signal.signal(signal.SIGCHLD, on_child_exit)

    def _explained(self, error: Exception) -> Exception:
        # A killed worker's results cannot be fetched any more: that error may come before the kernel calls it dead.
        multiprocessing.connection.wait([worker.sentinel for worker in self._workers()], DEATH_SECONDS)
        ended = [(i, worker.exitcode) for i, worker in enumerate(self._workers()) if worker.exitcode is not None]
        return self._watch.death(*ended[0]) if ended else error

    def _workers(self) -> list[Any]:
        return getattr(self._iterator, "_workers", [])

    def close(self) -> None:
        """Ends the workers, within about `GRACE_SECONDS` whatever they are doing. May be called again."""
        self.is_closed = True
        _open_loaders.discard(self)
        workers, iterator, self._iterator = self._workers(), self._iterator, None
        if not workers:
            return
        # A worker ends between two results; one that is stuck on a dead disk does not, and it ignores SIGTERM.
        killer = threading.Timer(GRACE_SECONDS, _kill, [workers])
        killer.start()
        try:
            iterator._shutdown_workers()
        finally:
            killer.cancel()

    def _abandon(self) -> None:
        """Ends the workers, one of which may hang: at once, and whether or not the kernel lets go of them."""
        workers, iterator = self._workers(), self._iterator
        if not workers:
            self.close()
            return
        _kill(workers)
        end = time.monotonic() + GRACE_SECONDS
        for worker in workers:
            worker.join(max(0.0, end - time.monotonic()))
            if worker.is_alive():
                # Stuck in a system call that no signal ends (a hard NFS mount): Python would wait for it at its end.
                multiprocessing.process._children.discard(worker)  # type: ignore[attr-defined]
        iterator._workers = []
        iterator._shutdown_workers()
        self.close()


def _unchanged(result: T) -> T:
    return result


def _ignore_signals(worker: int) -> None:
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED_SIGNALS)


def _kill(workers: list[Any]) -> None:
    for worker in workers:
        with contextlib.suppress(ProcessLookupError, ValueError):
            if worker.is_alive():
                os.kill(worker.pid, signal.SIGKILL)


_open_loaders: weakref.WeakSet[Loader[Any]] = weakref.WeakSet()


@atexit.register
def _close_open_loaders() -> None:
    """Python waits for child processes when it ends: a loader nobody closed would keep it waiting for ever.

    They get no time to end by themselves: from Python 3.12 on, no thread that counts it can be started by now.
    """
    for loader in list(_open_loaders):
        loader._abandon()
