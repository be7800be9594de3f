"""One run that is disturbed again and again, and in the end must be the run that nobody disturbed."""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.campaign.comparison import differences
from tests.campaign.process import Start
from tests.campaign.subjects import Subject

DISK_MEGABYTES = 24


class Lost(Exception):
    """Something that must not happen has happened; the text says what."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """The undisturbed run of a subject: its folder, how long it took, how often it was about to change a file."""

    folder: Path
    seconds: float
    writes: int


class Trial:
    """A subject in a folder of its own, on a small disk of its own where this user may mount one.

    Args:
        subject: what runs.
        reference: the same, undisturbed.
        folder: made here, and removed if all went well.
        draws: where every random choice comes from.
    """

    def __init__(self, subject: Subject, reference: Reference | None, folder: Path, draws: random.Random) -> None:
        self.subject, self.reference, self.draws = subject, reference, draws
        folder.mkdir(parents=True)
        self.folder, self.disk = folder, folder / "disk"
        self.disk.mkdir()
        self.has_disk = mount(self.disk)
        self.run = self.disk / "run"
        self.recipe = subject.write(folder)
        self.starts = 0

    def close(self) -> None:
        """Gives the disk back."""
        if self.has_disk:
            subprocess.run(["umount", "--lazy", str(self.disk)], check=True)

    def begin(self, *overrides: str, prepare: Callable[[], None] = lambda: None) -> Start:
        """Starts convrun on the run folder, as a user would each time."""
        self.starts += 1

        arguments = ["run", self.recipe, "--output", self.run, "--device", "cpu", "--no-plugins", *overrides]
        return Start(arguments, self.folder / f"output-{self.starts}.txt", self.subject.ranks, prepare)

    def wait_a_moment(self, process: Start, share: float = 0.4) -> bool:
        """Waits for some part of the time that the whole run takes; whether the process still runs then."""
        end = time.monotonic() + self.draws.uniform(0, share) * self.reference.seconds
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.0005)
        return process.poll() is None

    def end(self, process: Start, *codes: int, at_once: bool = False) -> int:
        """Waits for the end, of a process that was told to stop `at_once` or not.

        Raises:
            Lost: it hangs, ends otherwise than with one of these codes, or shows a traceback.
        """
        try:
            code = process.wait()
        except TimeoutError as error:
            raise Lost(f"start {self.starts}: {error}") from error
        text = process.output.read_text()
        # Loader workers whose process was killed may say that they cannot reach it any more; a second Ctrl-C may find
        # Python where it can only say that it ignores the exception.
        is_noise = code == -signal.SIGKILL or (at_once and "Exception ignored in" in text)
        if "Traceback" in text and not is_noise:
            raise Lost(f"start {self.starts} shows a traceback: {text.rstrip().splitlines()[-1]}")
        if code not in codes:
            raise Lost(f"start {self.starts} ended with {code} instead of {codes}: {text.rstrip()[-300:]}")
        return code

    def checkpoints(self) -> list[Path]:
        """The checkpoints, oldest first."""
        found = (self.run / "checkpoints").glob("step-*.pt")
        return sorted(found, key=lambda path: int(path.stem.partition("-")[2]))

    def is_finished(self) -> bool:
        """Whether the run has come to its end; it is no target any more."""
        return (self.run / "weights" / "last.safetensors").exists()

    def finish(self) -> None:
        """Starts it a last time, and compares.

        Raises:
            Lost: it does not finish, or is not the undisturbed run.
        """
        self.end(self.begin(), 0)
        assert self.reference is not None
        if found := differences(self.run, self.reference.folder):
            raise Lost("; ".join(found))
        self.end(self.begin(), 0)  # finished: says so


def mount(folder: Path) -> bool:
    """Mounts a small disk that can be filled; False where this user may not."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "tmpfs", str(folder)]
    return (
        sys.platform == "linux"
        and shutil.which("mount") is not None
        and subprocess.run(command, capture_output=True).returncode == 0
    )


def record(subject: Subject, folder: Path) -> Reference:
    """Runs a subject undisturbed."""
    trial = Trial(subject, None, folder, random.Random(0))
    counted = folder / "writes.txt"
    start = time.monotonic()
    trial.end(trial.begin(prepare=lambda: count_writes(trial.run, counted)), 0)
    seconds = time.monotonic() - start
    shutil.copytree(trial.run, folder / "run", symlinks=True)
    trial.close()
    return Reference(folder / "run", seconds, len(counted.read_text()))


def is_write(event: str, arguments: tuple, folder: str) -> bool:
    """Whether an audit event is about to change something in a folder."""
    if event == "open":
        path, mode, flags = arguments
        writes = "w" in (mode or "") or "a" in (mode or "") or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        return writes and isinstance(path, str | os.PathLike) and os.fspath(path).startswith(folder)
    if event in ("os.rename", "os.remove", "os.symlink", "os.mkdir"):
        return any(isinstance(a, str | os.PathLike) and str(a).startswith(folder) for a in arguments)
    return False


def count_writes(folder: Path, counted: Path) -> None:
    """From now on, a character is added to a file for each change in a folder."""
    descriptor, place, main = os.open(counted, os.O_WRONLY | os.O_CREAT | os.O_APPEND), str(folder), os.getpid()

    def hook(event: str, arguments: tuple) -> None:
        if is_write(event, arguments, place) and os.getpid() == main:
            os.write(descriptor, b".")

    sys.addaudithook(hook)


def die_at_write(folder: Path, number: int) -> None:
    """From now on, the process kills itself just before it changes something in a folder for the n-th time."""
    left, place, main = [number], str(folder), os.getpid()

    def hook(event: str, arguments: tuple) -> None:
        if is_write(event, arguments, place) and os.getpid() == main:
            left[0] -= 1
            if not left[0]:
                os.kill(main, signal.SIGKILL)

    sys.addaudithook(hook)
