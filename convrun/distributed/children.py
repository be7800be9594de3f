"""The parent of a run's processes on one machine: starts one a device, passes signals on, and reports how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from convrun.distributed.boards import FolderBoard
from convrun.distributed.failure import Failure
from convrun.distributed.world import BOARD_VARIABLE
from convrun.errors import Interrupted, Preempted
from convrun.training.signals import STOPPING

# Exit codes of a run that all processes ended together; rank 0 has said why.
TOGETHER = (3, 75, 130)
POLL_SECONDS = 0.05
# Enough for the others' watch, and for rank 0 to note in the run folder why the run ended.
GRACE_SECONDS = 8.0
# Those that end together do so one after the other, rank 0 last.
PARTING_SECONDS = 30.0
LAST_LINES = 20


class Children:
    """Processes that run the same command, each as one rank.

    Args:
        count: how many.
        command: what each runs; by default this very command line.
        debug: whether the user wants tracebacks of foreseen errors too.
        grace_seconds: how long the others may go on after the first failure; they hear of it and end by themselves.
    """

    def __init__(
        self,
        count: int,
        command: Sequence[str] | None = None,
        debug: bool = False,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self.count, self.debug, self.grace_seconds = count, debug, grace_seconds
        self.command = list(command or [sys.executable, "-m", "convrun", *sys.argv[1:]])
        self.processes: list[subprocess.Popen[bytes]] = []
        self.stop_signal: signal.Signals | None = None
        self._is_killing = False

    def run(self) -> None:
        """Starts them and waits for their end.

        Raises:
            RunFailed: one failed; the others are gone by then.
            Preempted, Interrupted: a signal came before they could save anything.
            SystemExit: they ended together, and rank 0 has said why.
        """
        with tempfile.TemporaryDirectory(prefix="convrun-") as folder, self._passing_signals_on():
            self.board, self.folder = FolderBoard(Path(folder)), Path(folder)
            try:
                self._start()
                self._wait()
            finally:
                self._kill()
            self._report()

    def _start(self) -> None:
        shared = process_environment(self.count, free_port(), self.folder)
        # Blocked until the child can deal with them: an early one must not end Python's start with a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            for rank in range(self.count):
                environment = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                with contextlib.ExitStack() as stack:
                    # Until its run folder is known: then the log there.
                    output = stack.enter_context(self._output_of(rank).open("wb")) if rank else None
                    self.processes.append(
                        subprocess.Popen(
                            self.command,
                            env=environment,
                            stdout=output,
                            stderr=output,
                            stdin=subprocess.DEVNULL,
                            process_group=0,  # a terminal's Ctrl-C comes here alone, and is passed on once
                        )
                    )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _output_of(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.out"

    def _wait(self) -> None:
        deadline, ended = float("inf"), set[int]()
        while len(ended) < self.count and time.monotonic() < deadline and not self._is_killing:
            for rank, process in enumerate(self.processes):
                if rank not in ended and (status := process.poll()) is not None:
                    ended.add(rank)
                    deadline = min(deadline, time.monotonic() + self._patience(rank, status))
            time.sleep(POLL_SECONDS)

    def _patience(self, rank: int, status: int) -> float:
        """How long the others may go on after a process's end; for one that left no word, some is left here."""
        if status == 0:
            return float("inf")  # they come to the same end, or their watch finds that it has gone
        if status in TOGETHER and self.board.read() is None:
            return PARTING_SECONDS
        if self.stop_signal is not None and status == -self.stop_signal:
            return POLL_SECONDS  # it had not begun: there is nothing to save
        if self.board.read() is None:
            self.board.claim(Failure.of_exit(rank, socket.gethostname(), status, self._last_words(rank)))
        return self.grace_seconds

    def _last_words(self, rank: int) -> str:
        """The last lines a process printed, whether to its log or before it had one."""
        for path in (self.folder / f"rank-{rank}.log", self._output_of(rank)):
            with contextlib.suppress(OSError):
                if lines := path.read_text(errors="replace").splitlines()[-LAST_LINES:]:
                    return "\n".join(lines)
        return ""

    def _report(self) -> None:
        if self.stop_signal == signal.SIGINT and self._is_killing:
            raise Interrupted("stopped at once; the last checkpoint stands")
        if failure := self.board.read():
            raise failure.error(self.debug)
        codes = {process.returncode for process in self.processes} - {0}
        if self.stop_signal is not None and codes - {*TOGETHER}:
            message = "stopped before training began: there was nothing to save"
            raise Interrupted(message) if self.stop_signal == signal.SIGINT else Preempted(message)
        if codes:
            raise SystemExit(max(codes))

    @contextlib.contextmanager
    def _passing_signals_on(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._pass_on) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        """To rank 0: all ranks then stop at the same step. A second Ctrl-C ends them at once."""
        if number == signal.SIGINT and self.stop_signal == signal.SIGINT:
            self._is_killing = True
        if self.stop_signal != signal.SIGINT:
            self.stop_signal = signal.Signals(number)
        if self.processes and self.processes[0].poll() is None:
            self.processes[0].send_signal(number)

    def _kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()


def process_environment(
    count: int, port: int, board: Path, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What all processes find in their environment: torchrun's variables, and where to leave word of a failure."""
    inherited = dict(os.environ if environment is None else environment)
    shared = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        BOARD_VARIABLE: str(board),
    }
    # Each would use all cores: they would wait for each other's threads.
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
    # gloo asks the machine for the address of its own name, and some know none.
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if Path("/sys/class/net/lo").exists() else {}
    return threads | loopback | inherited | shared


def free_port() -> int:
    """A TCP port that nobody uses at this moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
