"""The parent of a run's processes on one machine: starts one a device, passes signals on, and reports how it ended."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from convrun.distributed.failing.boards import FolderBoard
from convrun.distributed.failing.failure import Failure
from convrun.distributed.meeting.rank_log import latest_log
from convrun.errors import ConvrunError, Interrupted
from convrun.process.signals import STOPPING
from convrun.process.world import BOARD_VARIABLE, PARENT_VARIABLE

# Exit codes of a run that all processes ended together; rank 0 has said why. With any other, it has left word of that.
TOGETHER = (3, 75, 130)
POLL_SECONDS = 0.05
EPHEMERAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
FIRST_PORT = 20000  # below are those of well-known services
# Enough for the others' watch, and for rank 0 to note in the run folder why the run ended.
GRACE_SECONDS = 8.0
# Those that end together do so one after the other, rank 0 last.
PARTING_SECONDS = 30.0
# After a second Ctrl-C: enough for rank 0 to note in the run folder that it was interrupted. And after the end of rank
# 0, which is the last where all have begun: others may import still.
AT_ONCE_SECONDS = 2.0
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
        self.command = list(command or [sys.executable, *path_options(), "-m", "convrun", *sys.argv[1:]])
        self.processes: list[subprocess.Popen[bytes]] = []
        self._is_interrupted = False
        self._failure: Failure | None = None
        self._deadline = float("inf")  # when those that are still there are killed

    def run(self) -> None:
        """Starts them and waits for their end.

        Raises:
            RunFailed: one failed, or a signal came before training; the others are gone by then.
            Interrupted: a second Ctrl-C came, and rank 0 could say nothing of it.
            SystemExit: they ended together, and rank 0 has said why.
            ConvrunError: they cannot be started.
        """
        with self._passing_signals_on(), _temporary_folder() as self.folder:
            self.board = FolderBoard(self.folder)
            try:
                self._start()
                self._wait()
            finally:
                self._kill()
            self._report()

    def _start(self) -> None:
        shared = process_environment(self.count, free_port(), self.folder)
        try:
            for rank in range(self.count):
                self.processes.append(self._started(rank, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}))
        except OSError as error:
            raise ConvrunError(
                f"process {rank + 1} of {self.count} cannot be started: {error.strerror or error}; give fewer "
                "--devices, or look at ulimit -u and the machine's memory"
            ) from error
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    def _started(self, rank: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with contextlib.ExitStack() as stack:
            # Until its run folder is known: then the log there.
            output = stack.enter_context(self._output_of(rank).open("wb")) if rank else None
            return subprocess.Popen(
                self.command,
                env=environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                process_group=0,  # a terminal's Ctrl-C comes here alone, and is passed on once
            )

    def _output_of(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.out"

    def _wait(self) -> None:
        ended = set[int]()
        while len(ended) < self.count and time.monotonic() < self._deadline:
            for rank, process in enumerate(self.processes):
                if rank not in ended and (status := process.poll()) is not None:
                    ended.add(rank)
                    self._end_within(self._patience(rank, status))
            time.sleep(POLL_SECONDS)

    def _end_within(self, seconds: float) -> None:
        self._deadline = min(self._deadline, time.monotonic() + seconds)

    def _patience(self, rank: int, status: int) -> float:
        """How long the others may go on after a process's end; for one that left no word, some is left here."""
        if status == 0:
            return float("inf")  # they come to the same end, or their watch finds that it has gone
        self._failure = self._failure or self.board.read()
        if self._failure is None and (status in TOGETHER or (status > 0 and self.board.is_end_agreed)):
            return AT_ONCE_SECONDS if rank == 0 else PARTING_SECONDS
        if self._failure is None:
            # Whom the kernel kills for memory, has said nothing of it.
            words = "" if status == -signal.SIGKILL else self._last_words(rank)
            self._failure = Failure.of_exit(rank, socket.gethostname(), status, words)
            self.board.claim(self._failure)
        return 0.0 if rank == 0 else self.grace_seconds  # the others write nothing

    def _last_words(self, rank: int) -> str:
        """The last lines a process printed, whether to its log or before it had one."""
        for path in (latest_log(self.folder, rank), self._output_of(rank)):
            with contextlib.suppress(OSError):
                if lines := path.read_text(errors="replace").splitlines()[-LAST_LINES:]:
                    return "\n".join(lines)
        return ""

    def _report(self) -> None:
        if failure := self._failure or self.board.read():
            raise failure.error(self.debug)
        codes = [process.returncode for process in self.processes]
        if code := max(0, *codes):
            raise SystemExit(code)
        if min(codes) < 0:
            raise Interrupted("stopped at once; the last checkpoint stands")

    @contextlib.contextmanager
    def _passing_signals_on(self) -> Iterator[None]:
        # They wait until there is a process to pass them on to, and none inherits one that it cannot deal with yet: it
        # would end Python's start with a traceback.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        heard = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._pass_on) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        """To rank 0: all ranks then stop at the same step. A second Ctrl-C ends them at once."""
        if number == signal.SIGINT and self._is_interrupted:
            self._end_within(AT_ONCE_SECONDS)
        self._is_interrupted |= number == signal.SIGINT
        if self.processes and self.processes[0].poll() is None:
            self.processes[0].send_signal(number)

    def _kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    try:
        folder = tempfile.mkdtemp(prefix="convrun-")
    except OSError as error:
        raise ConvrunError(f"no temporary folder can be made: {error}; free space, or set TMPDIR to another") from error
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def path_options() -> list[str]:
    """Python's options by which a process imports from the same places as this one.

    `python -m` imports from the working folder first, `convrun` does not: a `yaml.py` there is nobody's plugin.
    """
    return [] if {"", str(Path.cwd())} & set(sys.path) else ["-P"]


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
        PARENT_VARIABLE: str(os.getpid()),
    }
    # Each would use all cores: they would wait for each other's threads.
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
    # gloo asks the machine for the address of its own name, and some know none.
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if Path("/sys/class/net/lo").exists() else {}
    return threads | loopback | inherited | shared


def free_port() -> int:
    """A TCP port that nobody uses at this moment, nor is given by chance before rank 0 has taken it.

    The kernel gives out ports of a range of its own, to whoever connects or asks for any: so it is one below, if there
    are some.
    """
    try:
        end = int(EPHEMERAL_PORTS.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        end = 0
    below = [FIRST_PORT + secrets.randbelow(end - FIRST_PORT) for _ in range(100)] if end > FIRST_PORT else []
    for port in (*below, 0):
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("", port))
            return int(found.getsockname()[1])
    raise ConvrunError("no TCP port is free on this machine, and processes meet at one; end some other programs")
