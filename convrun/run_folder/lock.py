"""One writer at a time in a run folder, on one machine or on many that share its file system.

Two locks work together. The kernel's lock (`flock`) on `.lock` refuses a second process at once and ends with its
holder, but many shared file systems keep it on one machine, or have none. So every holder also writes a claim,
`.lock.<n>`, with its identity and a counter that it increases every few seconds. A claim is created exclusively, with a
number above the newest, so that one of several processes wins. The newest claim counts:

- released, or of a process of this machine that is gone: the next number is taken at once;
- of a process of this machine that is running: refused;
- of another machine or container: watched for a few beats. Only whether the counter changes matters, never a clock.
  If it changes: refused. If not: the next number is taken.

A holder that was suspended for longer than that finds a newer claim, and must not write any more (`check_held`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from convrun.errors import RunFolderError
from convrun.run_folder.claim import BEAT_SECONDS, RELEASED, Claim, claim_file, claims_in, read_claim
from convrun.run_folder.process_identity import ProcessIdentity, this_process

# A holder on another machine counts as gone if its counter does not change for this many of its own beats.
PATIENCE_BEATS = 3
NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


class RunLock:
    """The right to write to a run folder.

    Args:
        folder: the run folder, which exists.
        say: shows a line to the user, who may have to wait.
        beat_seconds: seconds between two changes of the claim's counter.
        here: the process that takes the lock; by default this one.
        flock: the kernel's lock; raises OSError as `fcntl.flock` does.
    """

    def __init__(
        self,
        folder: Path,
        say: Callable[[str], None] = lambda text: None,
        *,
        beat_seconds: float = BEAT_SECONDS,
        here: ProcessIdentity | None = None,
        flock: Callable[[int, int], None] = fcntl.flock,
    ) -> None:
        self.folder, self.say, self.beat_seconds = folder, say, beat_seconds
        self.here, self._flock = here or this_process(), flock
        self.token, self.number = secrets.token_hex(8), 0
        self._descriptor: int | None = None
        self._beats, self._ended = 0, threading.Event()
        self._beating: threading.Thread | None = None

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            RunFolderError: another process writes to the folder.
            OSError: the lock's files cannot be written.
        """
        try:
            self._take_flock()
            _held.add(self)
            while not self._claim_next():
                pass
        except BaseException:
            self.release()
            raise
        self._beating = threading.Thread(target=self._beat_until_ended, name="run lock", daemon=True)
        self._beating.start()

    def release(self) -> None:
        """Releases the lock, so that another process gets it at once."""
        _held.discard(self)
        self._ended.set()
        if self._beating is not None:
            self._beating.join()
        with contextlib.suppress(OSError):  # a full or vanished disk: then the next start waits for a sign of life
            if self.number:
                self._write_trailer(RELEASED)
        self.number = 0
        self._close()

    def still_held(self) -> bool:
        """Whether this process may still write; costs one listing of the folder."""
        numbers = claims_in(self.folder)
        return bool(numbers) and numbers[-1] == self.number and read_claim(self.folder, self.number).token == self.token

    def check_held(self) -> None:
        """Raises RunFolderError if another process has taken the run over, so that this one must not write."""
        if self.still_held():
            return
        if not self.number:
            raise RunFolderError(f"{self.folder} was released by this process, which must not write to it any more")
        newest = max(claims_in(self.folder), default=0)
        if not newest:
            raise RunFolderError(
                f"the lock's files in {self.folder} were deleted (.lock, .lock.<n>), so another process may be writing "
                "there: this one stops and writes nothing more; start again to go on from the last checkpoint"
            )
        by = read_claim(self.folder, newest).text
        seconds = self.beat_seconds * PATIENCE_BEATS
        raise RunFolderError(
            f"{self.folder} was taken over by {by}: this process was suspended, or cut off from the disk, for more "
            f"than {seconds:g} s; it stops and writes nothing more, and the run goes on there"
        )

    def _take_flock(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self.folder / ".lock", flags, 0o666)
        try:
            self._flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            newest = max(claims_in(self.folder), default=0)
            claim = read_claim(self.folder, newest) if newest else None
            raise self._refusal(claim.text if claim and not claim.is_released else "another process") from None
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            self._close()
            self.say(
                f"the file system of {self.folder} has no file locks ({error.strerror}); convrun keeps its own, by a "
                f"sign of life every {self.beat_seconds:g} s"
            )

    def _refusal(self, holder: str) -> RunFolderError:
        return RunFolderError(
            f"{self.folder} is in use by {holder}; wait for it, stop it, or choose another folder with --output"
        )

    def _claim_next(self) -> bool:
        """Writes a claim above the newest, once that is free; False if another process was faster."""
        newest = max(claims_in(self.folder), default=0)
        if newest:
            self._wait_until_free(read_claim(self.folder, newest))
        number = newest + 1
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(claim_file(self.folder, number), flags, 0o666)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._header() + self._counter())
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            claim_file(self.folder, number).unlink(missing_ok=True)
            raise
        self.number = number
        numbers = claims_in(self.folder)
        if numbers[-1] != number:  # meanwhile others have added newer claims
            claim_file(self.folder, number).unlink(missing_ok=True)
            self.number = 0
            return False
        for older in numbers[:-1]:
            claim_file(self.folder, older).unlink(missing_ok=True)
        return True

    def _wait_until_free(self, claim: Claim) -> None:
        """Returns when the claim's holder is gone; raises RunFolderError when it is not."""
        if claim.is_released:
            return
        if claim.holder is not None and claim.holder.is_on_the_machine_of(self.here):
            if claim.token in {lock.token for lock in _held} or (
                claim.holder != self.here and claim.holder.is_running()
            ):
                raise self._refusal(claim.text)
            return
        seconds = PATIENCE_BEATS * claim.beat_seconds
        self.say(
            f"{self.folder} was last in use by {claim.text}, which cannot be checked from here; waiting "
            f"{seconds:g} s for a sign of life"
        )
        if self._is_changed_within(seconds, claim):
            now = read_claim(self.folder, claim.number)
            if not now.is_released:
                raise self._refusal(now.text if now.holder else claim.text)
        else:
            self.say(f"no sign of life from {claim.text}: this process takes the run over")

    def _is_changed_within(self, seconds: float, claim: Claim) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(1.0, seconds / 30))
            if read_claim(self.folder, claim.number).content != claim.content:
                return True
        return False

    def _header(self) -> bytes:
        said = {
            "holder": dataclasses.asdict(self.here),
            "token": self.token,
            "beat_seconds": self.beat_seconds,
        }
        return json.dumps(said).encode() + b"\n"

    def _counter(self) -> bytes:
        return b"%0*d" % (len(RELEASED), self._beats)

    def _beat_until_ended(self) -> None:
        while not self._ended.wait(self.beat_seconds):
            self._beats += 1
            # A failed write is retried at the next beat; `check_held` finds out whether that was too late.
            with contextlib.suppress(OSError):
                self._write_trailer(self._counter())

    def _write_trailer(self, trailer: bytes) -> None:
        """Overwrites the counter of this claim; never creates the file, since a newer holder may have deleted it."""
        descriptor = os.open(claim_file(self.folder, self.number), os.O_RDWR | os.O_CLOEXEC)
        try:
            header = self._header()
            if os.pread(descriptor, len(header), 0) == header:
                os.pwrite(descriptor, trailer, len(header))
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _close(self) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # a full disk
                os.close(self._descriptor)
            self._descriptor = None


_held: set[RunLock] = set()


def _forget_in_child() -> None:
    """Drops the lock in a forked loader worker, which may outlive a killed run by seconds and must not hold it then."""
    while _held:
        lock = _held.pop()
        lock._close()
        # The claim belongs to the parent, where its thread goes on; a fork does not copy threads.
        lock.number, lock._beating, lock._ended = 0, None, threading.Event()


os.register_at_fork(after_in_child=_forget_in_child)
