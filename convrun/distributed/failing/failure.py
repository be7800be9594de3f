"""What ended a run in one of its processes, as plain text that the others, and the user, can be told."""

from __future__ import annotations

import dataclasses
import json
import signal
import traceback

from convrun.errors import ConvrunError, UsageError
from convrun.process.world import World


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a process ended before its time.

    Attributes:
        rank: of the process.
        host: where it ran.
        message: what to tell the user; for a bug its last line.
        exit_code: what every process of the run ends with.
        traceback: where it happened, for a bug; for other errors only `--debug` shows it.
        is_bug: no error that convrun foresaw.
        is_everyones: the command line, the recipe, divergence or a signal: it matters to nobody which process it was.
    """

    rank: int
    host: str
    message: str
    exit_code: int = 1
    traceback: str = ""
    is_bug: bool = False
    is_everyones: bool = False

    @classmethod
    def of(cls, error: BaseException, world: World) -> Failure:
        """The failure that an exception stands for."""
        trace = "".join(traceback.format_exception(error))
        if isinstance(error, ConvrunError):
            is_everyones = error.exit_code != ConvrunError.exit_code
            return cls(world.rank, world.host, str(error), error.exit_code, trace, is_everyones=is_everyones)
        if isinstance(error, KeyboardInterrupt):
            return cls(world.rank, world.host, "interrupted", 130, trace, is_everyones=True)
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) and error.code else 1
            said = f" with {error.code!r}" if error.code is not None else ""
            return cls(world.rank, world.host, f"called sys.exit{said} in the midst of the run", code, trace)
        return cls(world.rank, world.host, f"{type(error).__name__}: {error}", 1, trace, is_bug=True)

    @classmethod
    def of_exit(cls, rank: int, host: str, status: int, last_words: str = "") -> Failure:
        """The failure of a process that ended without a word: its exit status, -n after a death by signal n."""
        if status < 0:
            try:
                name = f" ({signal.Signals(-status).name})"
            except ValueError:
                name = ""
            message = f"was killed by signal {-status}{name}"
            if -status == signal.SIGKILL:
                message += "; if nobody sent it, the machine ran out of memory: see dmesg"
        else:
            message = f"ended with exit code {status}, and without a word, in the midst of the run"
        said = f"; the last it printed:\n{last_words}" if last_words else ""
        return cls(rank, host, message + said, status if status > 0 else 1)

    def text(self, debug: bool = False) -> str:
        """For the user: which process it was, where that can matter, and what happened there."""
        name = f"rank {self.rank} on {self.host}"
        if self.is_bug or (debug and self.traceback):
            return f"{name} failed:\n{self.traceback.rstrip()}"
        if self.is_everyones:
            return self.message
        return f"{name} {self.message}" if self.message.startswith(_VERBS) else f"{name}: {self.message}"

    def error(self, debug: bool = False) -> RunFailed:
        """The exception that ends the process the user looks at."""
        return RunFailed(self, debug)

    def as_json(self) -> str:
        """For a board."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Failure:
        """What `as_json` wrote."""
        return cls(**json.loads(text))


_VERBS = ("was killed", "ended with", "called sys.exit", "does not answer", "has gone", "lost ")


class RunFailed(ConvrunError):
    """One of the run's processes failed, and with it the run; carries that process's exit code."""

    def __init__(self, failure: Failure, debug: bool = False) -> None:
        super().__init__(failure.text(debug))
        self.failure = failure
        self.exit_code = failure.exit_code


class DevicesGiven(UsageError):
    """`--devices`, though a launcher has started the processes already."""

    def __init__(self, world: World) -> None:
        with_what = {"torchrun": "--nproc_per_node", "slurm": "srun's --ntasks-per-node"}.get(world.launcher, "")
        super().__init__(
            f"--devices, but {world.launcher} has started this as one of {world.size} processes; leave --devices out "
            f"and say how many with {with_what}"
        )
