"""The faults: each starts the run, does it some harm, and says whether it took that as it must."""

import contextlib
import dataclasses
import os
import pickle
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.campaign.process import Start
from tests.campaign.trial import Lost, Trial, die_at_write

KILLED = -signal.SIGKILL
# So that about half of all faults are kills.
KILL_WEIGHT, OTHER_WEIGHT = 10.0, 1.0


@dataclasses.dataclass(frozen=True)
class Fault:
    """A kind of harm.

    Attributes:
        group: its line in the table.
        name: for the report.
        strike: does it; False if the run ended before.
        suits: whether it can be done to a trial.
        weight: how often it is drawn.
    """

    group: str
    name: str
    strike: Callable[[Trial], bool]
    suits: Callable[[Trial], bool]
    weight: float


FAULTS: list[Fault] = []


def fault(group: str, suits: Callable[[Trial], bool] = lambda trial: True, weight: float = OTHER_WEIGHT):
    """Enters a function among the faults; its name is the fault's."""

    def enter(strike: Callable[[Trial], bool]) -> Callable[[Trial], bool]:
        FAULTS.append(Fault(group, strike.__name__.replace("_", " "), strike, suits, weight))
        return strike

    return enter


def has_checkpoint(trial: Trial) -> bool:
    """Whether there is anything to go on from."""
    return bool(trial.checkpoints())


def has_workers(trial: Trial) -> bool:
    """Whether loader processes are there to be killed."""
    return trial.subject.workers > 0


def has_whole_photos(trial: Trial) -> bool:
    """Whether it reads image files, all of them good."""
    return trial.subject.has_photos and not trial.subject.is_broken


@fault("kills", weight=KILL_WEIGHT / 2)
def killed_at_a_random_moment(trial: Trial) -> bool:
    process = trial.begin()
    if trial.wait_a_moment(process):
        process.send(signal.SIGKILL, trial.draws.randrange(trial.subject.ranks))
    return trial.end(process, 0, KILLED) == KILLED


@fault("kills", weight=KILL_WEIGHT / 2)
def killed_just_before_a_write(trial: Trial) -> bool:
    number = trial.draws.randint(1, max(1, round(trial.reference.writes * 0.7)))
    process = trial.begin(prepare=lambda: die_at_write(trial.run, number))
    return trial.end(process, 0, KILLED) == KILLED


@fault("kills")
def killed_in_the_first_tenth_of_a_second(trial: Trial) -> bool:
    process = trial.begin()
    time.sleep(trial.draws.uniform(0, 0.1))
    process.send(signal.SIGKILL)
    return trial.end(process, 0, KILLED) == KILLED


@fault("kills", suits=has_workers)
def loader_worker_killed(trial: Trial) -> bool:
    process = trial.begin()
    if not trial.wait_a_moment(process):
        return False
    children = process.children()
    if not children:
        process.send(signal.SIGKILL)
        return trial.end(process, 0, KILLED) == KILLED
    with contextlib.suppress(ProcessLookupError):
        os.kill(trial.draws.choice(children), signal.SIGKILL)
    # One that had nothing left to do, or was about to be replaced, is not missed.
    return trial.end(process, 0, 1) == 1


@fault("signals", weight=2 * OTHER_WEIGHT)
def asked_to_stop(trial: Trial) -> bool:
    number = trial.draws.choice([signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT])
    process = trial.begin()
    _wait_until_it_trains(trial, process)
    if trial.wait_a_moment(process):
        process.send(number)
    return trial.end(process, 0, 130 if number == signal.SIGINT else 75) != 0


@fault("signals")
def interrupted_twice(trial: Trial) -> bool:
    process = trial.begin()
    _wait_until_it_trains(trial, process)
    if trial.wait_a_moment(process):
        process.send(signal.SIGINT)
        time.sleep(trial.draws.uniform(0, 0.02))
        process.send(signal.SIGINT)
    return trial.end(process, 0, 130, at_once=True) != 0


@fault("signals")
def frozen_for_a_while_and_killed(trial: Trial) -> bool:
    process = trial.begin()
    if trial.wait_a_moment(process):
        process.send(signal.SIGSTOP)
        time.sleep(trial.draws.uniform(0, 0.3))
        process.send(signal.SIGCONT)
        if trial.wait_a_moment(process, share=0.2):
            process.send(signal.SIGKILL)
    return trial.end(process, 0, KILLED) == KILLED


@fault("corrupted checkpoints", suits=has_checkpoint, weight=2 * OTHER_WEIGHT)
def newest_checkpoints_damaged(trial: Trial) -> bool:
    found, backup, canary = trial.checkpoints(), trial.folder / "backup", trial.folder / "canary"
    shutil.copytree(trial.run, backup, symlinks=True)
    damaged = found[-trial.draws.randint(1, len(found)) :]
    for path in damaged:
        damage(path, trial, canary)
    process = trial.begin()
    if len(damaged) == len(found):
        trial.end(process, 1)
        trial.end(trial.begin(), 1)  # nor does it start over when asked again
        shutil.rmtree(trial.run)
        shutil.copytree(backup, trial.run, symlinks=True)
    elif trial.wait_a_moment(process):
        process.send(signal.SIGKILL)
        trial.end(process, 0, KILLED)
    else:
        trial.end(process, 0)
    shutil.rmtree(backup)
    text = process.output.read_text()
    if canary.exists():
        raise Lost("a checkpoint ran code")
    if "goes on after" in text and damaged[-1].name not in text:
        raise Lost(f"start {trial.starts} does not name the damaged {damaged[-1].name}")
    return True


def damage(path: Path, trial: Trial, canary: Path) -> None:
    """Cuts a file off, turns over a byte, empties it, or puts a pickle in its place that runs code."""
    content, how = path.read_bytes(), trial.draws.randrange(4)
    if how == 0:
        content = content[: trial.draws.randrange(len(content))]
    elif how == 1:
        place = trial.draws.randrange(len(content))
        content = content[:place] + bytes([content[place] ^ 1 << trial.draws.randrange(8)]) + content[place + 1 :]
    elif how == 2:
        content = b""
    else:
        content = pickle.dumps(_RunsCode(str(canary)))
    path.write_bytes(content)


class _RunsCode:
    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


@fault("corrupted checkpoints")
def torn_lines_and_drafts_left(trial: Trial) -> bool:
    process = trial.begin()
    if trial.wait_a_moment(process):
        process.send(signal.SIGKILL)
    if trial.end(process, 0, KILLED) == 0:
        return False
    for name in ("metrics.jsonl", "train.log"):
        if (trial.run / name).exists():
            with (trial.run / name).open("ab") as file:
                file.write(b'{"kind": "train", "step": 1'[: trial.draws.randint(1, 27)])
    if (trial.run / "checkpoints").exists():
        (trial.run / "checkpoints" / ".step-99.1.draft").write_bytes(b"half")
    return True


@fault("full disks", suits=lambda trial: trial.has_disk, weight=2 * OTHER_WEIGHT)
def disk_full_for_a_while(trial: Trial) -> bool:
    process = trial.begin()
    if not trial.wait_a_moment(process):
        trial.end(process, 0)
        return False
    filler = trial.disk / "filler"
    fill(filler)
    is_freed = trial.draws.random() < 0.5
    if trial.wait_a_moment(process) and is_freed:
        filler.unlink()
    code = trial.end(process, 0, 1)
    filler.unlink(missing_ok=True)
    if code == 1 and "No space left" not in process.output.read_text():
        raise Lost(f"start {trial.starts} does not say that the disk is full")
    return True


@fault("full disks", suits=lambda trial: trial.has_disk)
def started_on_a_full_disk(trial: Trial) -> bool:
    filler = trial.disk / "filler"
    fill(filler)
    process = trial.begin()
    trial.end(process, 1)
    filler.unlink()
    return True


def fill(path: Path) -> None:
    """Takes what is left of a disk."""
    block = bytes(1 << 16)
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(block)


@fault("broken images", suits=has_whole_photos, weight=3 * OTHER_WEIGHT)
def image_broken_for_a_while(trial: Trial) -> bool:
    split = trial.draws.choice(["train", "val"])
    path = trial.draws.choice(sorted((trial.folder / "photos" / split).rglob("*.png")))
    good = path.read_bytes()
    process = trial.begin()
    trial.wait_a_moment(process, share=0.3)
    path.write_bytes(good[: trial.draws.randrange(len(good) // 2)])
    code = trial.end(process, 0, 1)
    path.write_bytes(good)
    if code == 1 and path.name not in process.output.read_text():
        raise Lost(f"start {trial.starts} does not name the broken image {path}")
    return code == 1


@fault("broken images", suits=has_whole_photos)
def image_gone_at_the_start(trial: Trial) -> bool:
    path = trial.draws.choice(sorted((trial.folder / "photos" / "train").rglob("*.png")))
    good = path.read_bytes()
    path.unlink()
    trial.end(trial.begin(), 1, 2)
    path.write_bytes(good)
    return True


@fault("intruders")
def second_process_in_the_folder(trial: Trial) -> bool:
    first = trial.begin()
    _wait_until_it_trains(trial, first)
    if not trial.wait_a_moment(first, share=0.2):
        return trial.end(first, 0) != 0
    first.send(signal.SIGSTOP)  # it must not end while the second looks
    second = trial.begin()
    # The first may have given the folder back just before.
    was_over = trial.end(second, *((1, 0) if trial.is_finished() else (1,))) == 0
    first.send(signal.SIGCONT)
    if not was_over and "in use by" not in second.output.read_text():
        raise Lost(f"start {trial.starts} does not say who uses the folder")
    if trial.wait_a_moment(first):
        first.send(signal.SIGKILL)
    trial.end(first, 0, KILLED)
    return True


@fault("intruders", suits=has_checkpoint)
def started_with_another_recipe(trial: Trial) -> bool:
    key = trial.draws.choice(["optimizer.lr=1", "seed=4", "ema.decay=0.5", "training.steps=130"])
    process = trial.begin(key)
    trial.end(process, 1)
    if key.partition("=")[0] not in process.output.read_text():
        raise Lost(f"start {trial.starts} does not name {key}")
    return True


def _wait_until_it_trains(trial: Trial, process: Start) -> None:
    """Until then a signal finds nothing to save."""
    while process.poll() is None and "in " + str(trial.run) not in process.output.read_text():
        time.sleep(0.002)


def suited(trial: Trial) -> list[Fault]:
    """The faults that can be done to a trial now."""
    return [fault for fault in FAULTS if fault.suits(trial)]


def groups() -> list[str]:
    """The lines of the table, in order."""
    return list(dict.fromkeys(fault.group for fault in FAULTS))
