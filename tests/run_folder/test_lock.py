"""Processes that want one folder: on this machine, on another, and where the kernel's lock does not reach."""

import dataclasses
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from convrun.errors import RunFolderError
from convrun.run_folder.claim import RELEASED, claim_file, claims_in, is_lock_file, read_claim
from convrun.run_folder.lock import RunLock
from convrun.run_folder.process_identity import this_process

BEAT = 0.05
STEADY_BEAT = 0.5  # of a holder that is to be found alive: on a busy machine, too, one in three comes in time
ELSEWHERE = dataclasses.replace(this_process(), host="node17", boot="of-another-kernel")


def no_lock_across_machines(_descriptor, _how):
    """A file system whose flock ends at the machine: everybody gets it."""


def not_supported(number):
    def flock(_descriptor, _how):
        raise OSError(number, os.strerror(number))

    return flock


class Taker:
    """Locks of one folder, with fast beats, and what they said."""

    def __init__(self, folder):
        self.folder, self.said, self.taken = folder, [], []

    def __call__(self, here=None, flock=fcntl.flock, beat=BEAT):
        lock = RunLock(self.folder, self.said.append, beat_seconds=beat, here=here, flock=flock)
        lock.acquire()
        self.taken.append(lock)
        return lock


@pytest.fixture
def take(tmp_path):
    taker = Taker(tmp_path)
    yield taker
    for lock in taker.taken:
        lock.release()


def leave_claim(folder, holder, token="theirs", beat=BEAT, number=1, counter=b"%012d" % 7):
    """A claim whose holder is gone without a word."""
    said = {"holder": dataclasses.asdict(holder), "token": token, "beat_seconds": beat}
    claim_file(folder, number).write_bytes(json.dumps(said).encode() + b"\n" + counter)


HOLD = """
import dataclasses, pathlib, sys, time
from convrun.run_folder.process_identity import this_process
from convrun.run_folder.lock import RunLock
here, flock = this_process(), {}
if sys.argv[2] == "elsewhere":
    here = dataclasses.replace(here, host="node17", boot="of-another-kernel")
    flock = {"flock": lambda descriptor, how: None}
lock = RunLock(pathlib.Path(sys.argv[1]), here=here, beat_seconds=float(sys.argv[3]), **flock)
lock.acquire()
print("in", flush=True)
for line in sys.stdin:
    try:
        lock.check_held()
        print("held", flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
lock.release()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder; `elsewhere` is one on another machine, as far as anybody can tell."""
    started = []

    def start(where="here", beat=BEAT):
        command = [sys.executable, "-c", HOLD, str(tmp_path), where, str(beat)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "in\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def asked(process):
    process.stdin.write("?\n")
    process.stdin.flush()
    return process.stdout.readline()


def test_a_lock_that_was_given_back_is_taken_at_once_and_silently(take, tmp_path):
    for _ in range(3):
        take().release()
    assert take().still_held()
    assert take.said == []
    assert claims_in(tmp_path) == [4]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".lock.4"]


@pytest.mark.parametrize("flock", [fcntl.flock, no_lock_across_machines], ids=["flock", "none"])
def test_a_second_taker_in_the_same_process_is_refused(flock, take):
    take(flock=flock)
    with pytest.raises(
        RunFolderError, match=rf"is in use by process {os.getpid()} on .*; wait for it, stop it, or cho"
    ):
        take(flock=flock)
    assert take.taken[0].still_held()


@pytest.mark.parametrize("flock", [fcntl.flock, no_lock_across_machines], ids=["flock", "none"])
def test_a_running_process_of_this_machine_is_refused_by_name_though_it_is_suspended(flock, take, holder):
    process = holder()
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(RunFolderError, match=f"is in use by process {process.pid} on "):
        take(flock=flock)


@pytest.mark.parametrize("flock", [fcntl.flock, no_lock_across_machines], ids=["flock", "none"])
def test_after_a_kill_on_this_machine_the_lock_is_taken_at_once(flock, take, holder):
    process = holder(beat=50.0)
    process.kill()
    process.wait()
    start = time.monotonic()
    assert take(flock=flock).still_held()
    assert time.monotonic() - start < 50, "no beat was waited for"
    assert take.said == []


def test_a_process_number_that_was_given_to_another_process_is_no_holder(take, tmp_path):
    leave_claim(tmp_path, dataclasses.replace(this_process(), pid=os.getppid(), started="1"), beat=50.0)
    assert take().still_held()


def test_a_holder_on_another_machine_is_refused_by_its_beat_though_flock_was_granted(take, holder):
    process = holder("elsewhere", beat=STEADY_BEAT)
    with pytest.raises(RunFolderError, match=f"is in use by process {process.pid} on node17; wait"):
        take()
    assert take.said == [
        f"{take.folder} was last in use by process {process.pid} on node17, which cannot be checked from here; "
        "waiting 1.5 s for a sign of life"
    ]
    assert asked(process) == "held\n"


def test_a_holder_on_another_machine_that_was_killed_is_followed_and_that_is_said(take, holder):
    process = holder("elsewhere")
    process.kill()
    process.wait()
    assert take().still_held()
    assert take.said[-1] == f"no sign of life from process {process.pid} on node17: this process takes the run over"


def test_the_holders_own_rhythm_decides_how_long_it_is_watched(take, tmp_path, monkeypatch):
    leave_claim(tmp_path, ELSEWHERE, beat=7.0)
    slept, clock = [], [0.0]

    def sleep(seconds):
        slept.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr("convrun.run_folder.lock.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("convrun.run_folder.lock.time.sleep", sleep)
    take()
    assert sum(slept) == pytest.approx(21, abs=1)
    assert "waiting 21 s" in take.said[0]


def test_a_holder_that_wakes_up_after_another_took_over_may_not_write(take, holder):
    process = holder("elsewhere")
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    ours = take(beat=STEADY_BEAT)
    process.send_signal(signal.SIGCONT)
    answer = asked(process)
    assert answer.startswith(f"RunFolderError {take.folder} was taken over by process {os.getpid()} on ")
    assert "it stops and writes nothing more" in answer
    # Neither its beats nor its end touch the claim of the one that has the folder now.
    process.communicate()
    assert ours.still_held()
    assert claims_in(take.folder) == [ours.number]
    with pytest.raises(RunFolderError, match="is in use by"):
        take(here=ELSEWHERE, flock=no_lock_across_machines)


def test_a_holder_that_ends_well_while_it_is_watched_is_followed_at_once(take, holder, tmp_path):
    process = holder("elsewhere", beat=20.0)
    said = []

    def note_and_end_it(text):
        said.append(text)
        process.stdin.close()

    lock = RunLock(tmp_path, note_and_end_it)
    lock.acquire()
    assert lock.still_held()
    lock.release()
    assert len(said) == 1, "it waited, and not in vain"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_without_the_kernels_locks_the_beat_alone_decides_and_that_is_said(number, take):
    ours = take(flock=not_supported(number), beat=STEADY_BEAT)
    assert len(take.said) == 1
    assert f"has no file locks ({os.strerror(number)}); convrun keeps its own" in take.said[0]
    with pytest.raises(RunFolderError, match=f"is in use by process {os.getpid()} on "):
        take(here=ELSEWHERE, flock=not_supported(number))
    ours.release()
    assert take(here=ELSEWHERE, flock=not_supported(number)).still_held()


def test_an_error_of_the_disk_is_not_taken_for_a_missing_lock(take):
    with pytest.raises(OSError, match="Input/output error"):
        take(flock=not_supported(errno.EIO))


@pytest.mark.parametrize("left", ["nothing", "a dead holder"])
def test_of_many_that_start_at_one_moment_exactly_one_wins(left, tmp_path):
    """No flock at all, each on a machine of its own: the exclusive creation of the claim decides."""
    if left != "nothing":
        leave_claim(tmp_path, dataclasses.replace(ELSEWHERE, host="gone"))
    results, together = [], threading.Barrier(8)

    def try_it(i):
        here = dataclasses.replace(ELSEWHERE, host=f"node{i}")
        # Slow beats: a winner that the machine lets wait for three of them is rightly followed by another.
        lock = RunLock(tmp_path, here=here, beat_seconds=0.5, flock=no_lock_across_machines)
        together.wait()
        try:
            lock.acquire()
            results.append(lock)
        except RunFolderError:
            results.append(None)

    threads = [threading.Thread(target=try_it, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [lock for lock in results if lock is not None]
    assert len(results) == 8
    assert winner.still_held()
    winner.release()


def test_a_claim_that_comes_late_gives_way(take, tmp_path, monkeypatch):
    """Between looking at claim 1 and creating claim 2, others took and gave back 2 and took 3."""
    leave_claim(tmp_path, dataclasses.replace(ELSEWHERE, host="gone"))
    lock = RunLock(tmp_path, beat_seconds=BEAT, flock=no_lock_across_machines)
    wait = lock._wait_until_free

    def and_meanwhile(claim):
        wait(claim)
        if claim.number == 1:
            claim_file(tmp_path, 1).unlink()
            leave_claim(tmp_path, this_process(), "held", number=3)
            monkeypatch.setattr(
                "convrun.run_folder.lock._held", {dataclasses.make_dataclass("H", ["token"], frozen=True)("held")}
            )

    monkeypatch.setattr(lock, "_wait_until_free", and_meanwhile)
    with pytest.raises(RunFolderError, match="is in use by"):
        lock.acquire()
    assert claims_in(tmp_path) == [3]


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"{", b"null", b'{"holder": 1}', b"\xff" * 100, b"[" * 5000, b"9" * 5000,
     json.dumps({"holder": dataclasses.asdict(ELSEWHERE), "token": "", "beat_seconds": 1e9}).encode(),
     json.dumps({"holder": dataclasses.asdict(ELSEWHERE), "token": "", "beat_seconds": float("nan")}).encode(),
     json.dumps({"holder": dataclasses.asdict(ELSEWHERE) | {"pid": -1}, "token": "", "beat_seconds": 1}).encode(),
     json.dumps({"holder": dataclasses.asdict(ELSEWHERE) | {"pid": "1"}, "token": "", "beat_seconds": 1}).encode()],
)  # fmt: skip
def test_a_claim_that_nobody_can_read_is_watched_like_one_of_another_machine(content, take, tmp_path, monkeypatch):
    monkeypatch.setattr("convrun.run_folder.lock.Claim.__init__.__defaults__", (None, "", BEAT))
    claim_file(tmp_path, 1).write_bytes(content)
    assert take().still_held()
    assert take.said[-1] == "no sign of life from another process: this process takes the run over"


def test_the_beat_goes_on_while_the_folder_is_held_and_ends_with_it(take, wait_until):
    lock = take()
    first = read_claim(take.folder, lock.number).content
    wait_until(lambda: read_claim(take.folder, lock.number).content != first)
    lock.release()
    assert read_claim(take.folder, 1).content.endswith(RELEASED)
    assert not lock._beating.is_alive()


def test_a_fork_neither_holds_the_lock_nor_gives_it_back(take, tmp_path):
    """A loader worker may outlive a killed run by seconds, and ends before or after it."""
    lock = take()
    child = os.fork()
    if not child:
        lock.release()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert lock.still_held()
    assert not read_claim(tmp_path, lock.number).is_released
    with pytest.raises(RunFolderError, match="is in use by"):
        take()


def test_a_claim_that_somebody_deleted_is_lost(take):
    lock = take()
    claim_file(take.folder, lock.number).unlink()
    assert not lock.still_held()
    with pytest.raises(RunFolderError, match=r"lock's files in .* were deleted .*: this one stops"):
        lock.check_held()


def test_a_disk_that_takes_no_claim_leaves_none(take, tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("convrun.run_folder.lock.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        take()
    assert claims_in(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "belongs"),
    [
        (".lock", True),
        (".lock.12", True),
        (".lock.", False),
        (".lock.x", False),
        ("lock.1", False),
        (".lock.1.b", False),
    ],
)
def test_the_locks_files_are_told_from_others(name, belongs):
    assert is_lock_file(name) is belongs
