"""`convrun ARGUMENTS` in forks of this process: real to signals, locks and disks, but torch is there already."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial

from convrun.distributed.meeting.children import free_port

HANGS_AFTER_SECONDS = 120
# From the end of one rank that failed to that of the others, which should have ended by themselves if they had met.
LAUNCHERS_PATIENCE_SECONDS = 20


class Forked:
    """One process of convrun; what it prints is appended to `output`.

    Args:
        arguments: the command line after `convrun`.
        output: a file.
        prepare: called in the fork before convrun starts.
    """

    def __init__(self, arguments, output, prepare: Callable[[], None] = lambda: None) -> None:
        self.output = output
        self.code: int | None = None
        output.touch()
        self.pid = os.fork()
        if not self.pid:
            self._convrun(arguments, prepare)

    def _convrun(self, arguments, prepare) -> None:
        code = 99
        try:
            with self.output.open("a") as stream:
                for descriptor in (1, 2):  # what C++ prints goes there, too
                    os.dup2(stream.fileno(), descriptor)
                sys.stdout, sys.stderr = (os.fdopen(d, "w", buffering=1, closefd=False) for d in (1, 2))
                sys.argv = ["convrun", *map(str, arguments)]
                for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_REAL, 0)
                import torch

                from convrun.entry import main

                torch.set_num_threads(1)  # before there are threads: two must not find a pool from before the fork
                prepare()
                main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            import traceback

            with self.output.open("a") as stream:
                traceback.print_exc(file=stream)
        finally:
            os._exit(code)

    def send(self, number: int) -> None:
        """Sends a signal, if it is still there."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def poll(self) -> int | None:
        """The exit code, -n for a death by signal n; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def children(self) -> list[int]:
        """The processes it has started, loader workers for one."""
        try:
            with open(f"/proc/{self.pid}/task/{self.pid}/children") as file:
                return [int(word) for word in file.read().split()]
        except FileNotFoundError:
            return []


class Start:
    """One start of convrun, as one process or as several ranks of one run.

    Args:
        arguments: the command line after `convrun`.
        output: a file to which all ranks print; they run in its folder.
        ranks: how many; more than one find in their environment what torchrun would tell them.
        prepare: called in rank 0 before convrun starts.
    """

    def __init__(self, arguments, output, ranks: int = 1, prepare: Callable[[], None] = lambda: None) -> None:
        self.output, port = output, free_port()

        def prepared(rank: int) -> None:
            if ranks > 1:
                places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
                meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
                os.environ.update({name: str(value) for name, value in (places | meeting).items()})
            os.chdir(output.parent)
            if rank == 0:
                prepare()

        self._first_end, self._ended = 0.0, list[int]()
        self.ranks = [Forked(arguments, output, partial(prepared, rank)) for rank in range(ranks)]

    def send(self, number: int, rank: int = 0) -> None:
        """Sends a signal, if it is still there; convrun's own launchers send it to rank 0, which tells the others."""
        self.ranks[rank].send(number)

    def poll(self) -> int | None:
        """The exit code, -n for a death by signal n; None while one of the ranks runs.

        That of several is rank 0's, unless one was killed: the others notice, and end with what they make of it. One
        that has not met the others yet waits for them, and is ended here after a while, as every launcher does.
        """
        codes = [process.poll() for process in self.ranks]
        if None not in codes:
            was_killed = any(codes[rank] == -signal.SIGKILL for rank in range(len(codes)) if rank not in self._ended)
            return -signal.SIGKILL if was_killed else codes[0]
        if any(codes) and not self._ended:
            self._first_end = self._first_end or time.monotonic()
            if time.monotonic() > self._first_end + LAUNCHERS_PATIENCE_SECONDS:
                self._ended = [rank for rank, code in enumerate(codes) if code is None]
                for rank in self._ended:
                    self.send(signal.SIGKILL, rank)
        return None

    def wait(self, seconds: float = HANGS_AFTER_SECONDS) -> int:
        """The exit code.

        Raises:
            TimeoutError: it does not end; it is killed then.
        """
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                running = [rank for rank, process in enumerate(self.ranks) if process.poll() is None]
                for rank in running:
                    self.send(signal.SIGKILL, rank)
                raise TimeoutError(f"still running after {seconds:.0f} s: {running}")
            time.sleep(0.002)
        return code

    def children(self) -> list[int]:
        """The processes it has started, loader workers for one."""
        return [child for process in self.ranks for child in process.children()]


def import_what_forks_need() -> None:
    """What is imported here, no fork imports again."""
    import timm  # noqa: F401
    import torch
    import torch.utils.tensorboard

    import convrun.cli
    import convrun.training.run  # noqa: F401

    # A spawned process would spawn in turn, and loader workers would import torch at each evaluation.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
