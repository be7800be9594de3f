"""`convrun ARGUMENTS` in a fork of this process: real to signals, locks and disks, but torch is there already."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable

HANGS_AFTER_SECONDS = 120


class Forked:
    """One start of convrun; what it prints is appended to `output`.

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
            with self.output.open("a", buffering=1) as stream:
                sys.stdout = sys.stderr = stream
                sys.argv = ["convrun", *map(str, arguments)]
                for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_REAL, 0)
                from convrun.entry import main

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

    def wait(self, seconds: float = HANGS_AFTER_SECONDS) -> int:
        """The exit code.

        Raises:
            TimeoutError: it does not end; it is killed then.
        """
        end = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(f"still running after {seconds:.0f} s")
            time.sleep(0.002)
        return self.code

    def children(self) -> list[int]:
        """The processes it has started, loader workers for one."""
        try:
            with open(f"/proc/{self.pid}/task/{self.pid}/children") as file:
                return [int(word) for word in file.read().split()]
        except FileNotFoundError:
            return []


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
