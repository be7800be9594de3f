"""Several processes of one run, as a launcher would start them, but forked: torch is imported already."""

import os
import signal
import sys
import time

import pytest
import torch

from convrun.distributed.meeting.children import free_port

# 12 micro-batches a step: 1, 2, 3 and 4 processes divide them. 20 steps, 2 an epoch. At four times this learning
# rate AdamW's first steps amplify the differences of rounding fast enough to pass 1e-5 after 12, with torch 2.11.
SAME_RUN = (
    "optimizer.lr=5e-3",
    "training.batch_size=24",
    "training.micro_batch=2",
    "training.epochs=10",
    "data.val_images=10",
)


class Ranks:
    """`convrun ARGUMENTS` in forks of this process, each with torchrun's variables."""

    def __init__(self, count, arguments, folder, at, start):
        self.outputs = [folder / f"rank-{rank}.txt" for rank in range(count)]
        self.pids, port = {}, free_port()
        for rank in start if start is not None else range(count):
            pid = os.fork()
            if not pid:
                self._convrun(rank, count, port, arguments, at)
            self.pids[rank] = pid

    def _convrun(self, rank, count, port, arguments, at):
        code = 99
        try:
            output = os.open(self.outputs[rank], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for descriptor in (1, 2):
                os.dup2(output, descriptor)
            sys.stdout, sys.stderr = (os.fdopen(d, "w", buffering=1, closefd=False) for d in (1, 2))
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
            meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
            os.environ.update({name: str(value) for name, value in (place | meeting).items()})
            sys.argv = ["convrun", "run", *map(str, arguments(rank) if callable(arguments) else arguments)]
            for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, 0)
            torch.set_num_threads(1)  # before there are threads: two of them must not find a pool from before the fork
            self._act(rank, at)
            from convrun.entry import main

            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)  # whatever else fails: nobody wants a second pytest

    def _act(self, rank, at):
        """Calls `at[rank, step]` once this rank has done these steps; `at[rank, None]` at its start."""
        from convrun.training.recording.quiet import QuietRecorder
        from convrun.training.recording.recorder import RunRecorder

        at.get((rank, None), lambda: None)()
        kind = QuietRecorder if rank else RunRecorder
        advance = kind.advance

        def advance_and_act(recorder, step):
            advance(recorder, step)
            at.get((rank, step), lambda: None)()

        kind.advance = advance_and_act

    def wait(self, seconds=180):
        """The exit codes by rank; -n for a death by signal n."""
        end, codes = time.monotonic() + seconds, {}
        while len(codes) < len(self.pids):
            for rank, pid in self.pids.items():
                if rank not in codes:
                    found, status = os.waitpid(pid, os.WNOHANG)
                    if found:
                        codes[rank] = os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                self.kill()
                pytest.fail(f"still running after {seconds} s: {set(self.pids) - set(codes)}\n{self.said()}")
            time.sleep(0.01)
        self.pids = {}
        return [codes[rank] for rank in sorted(codes)]

    def said(self):
        """What all ranks printed."""
        return "".join(path.read_text() for path in self.outputs if path.exists())

    def kill(self):
        for pid in self.pids.values():
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Starts convrun in so many processes."""
    import timm  # noqa: F401  (what is imported here, no fork imports again)
    import torch

    import convrun.cli
    import convrun.distributed.meeting.rank
    import convrun.training.run  # noqa: F401

    torch.set_num_threads(1)
    started = []

    def start(count, arguments, at=None, only=None):
        started.append(Ranks(count, arguments, tmp_path_factory.mktemp("ranks"), at or {}, only))
        return started[-1]

    yield start
    for processes in started:
        processes.kill()


@pytest.fixture(scope="module")
def same_run(tiny_file):
    """The arguments that train the same run of 20 steps into a folder."""

    def arguments(folder, *more):
        return [tiny_file, "--no-plugins", "--device", "cpu", "-o", folder, *SAME_RUN, *more]

    return arguments
